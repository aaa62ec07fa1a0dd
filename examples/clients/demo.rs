//! An agent in Rust: does its pieces of work, tells how they go, and finishes the one in hand when it is asked to end. SIGTERM comes along with that,
//! and std can't handle it: `command = ["sh", "-c", "trap '' TERM; exec hive_agent"]`.

#[expect(unreachable_pub, reason = "a file to be copied into a crate where it may be public")]
mod hive_agent;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hive_agent::Agent;
use serde_json::json;

fn main() {
    let finish = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&finish);
    let hive = Agent::from_env(move || asked.store(true, Ordering::Relaxed));
    let mut done = 0;
    while !finish.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(200)); // one piece of work
        done += 1;
        hive.progress(&json!({"done": done}), true);
        hive.log("info", &format!("piece {done} is done"));
        hive.tell("hive/metric", &json!({"name": "work.duration", "value": 0.2, "unit": "s"}));
        let totals = json!({"gen_ai.usage.input_tokens": done * 100, "gen_ai.usage.output_tokens": done * 20});
        hive.tell("hive/usage", &totals);
        if done % 10 == 0 {
            hive.tell("hive/event", &json!({"kind": "milestone", "done": done}));
        }
    }
    hive.tell("hive/event", &json!({"kind": "finished", "done": done, "dropped": hive.dropped()}));
    hive.flush(Duration::from_secs(5));
}
