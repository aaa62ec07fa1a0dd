//! Whatever happens in whatever order: the promises hold.
//!
//! A history is a supervisor, its children and a list of moves, all made from one number. A small world plays the shell and the actors: it
//! obeys the core's actions, lets incarnations become ready, fail to start, crash, end late or ignore a kill, repeats notices, and lets
//! operators interfere; `world.rs` holds the promises. A history that breaks one is shortened, printed, and played again alone with
//! `HK_TEST_HISTORY=NUMBER`. `HK_TEST_LONG=yes` plays a million.

mod fates;
pub(crate) mod history;
mod world;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use hivekeeper_actors::Strategy;

use history::{History, Move};
use world::World;

/// For each of the four strategies.
const HISTORIES: u64 = 2_500;
const HISTORIES_LONG: u64 = 250_000;

#[test]
fn histories_of_one_for_one() {
    play_many(Strategy::OneForOne, 0);
}

#[test]
fn histories_of_one_for_all() {
    play_many(Strategy::OneForAll, 1);
}

#[test]
fn histories_of_rest_for_one() {
    play_many(Strategy::RestForOne, 2);
}

#[test]
fn histories_of_simple_one_for_one() {
    play_many(Strategy::SimpleOneForOne, 3);
}

fn play_many(strategy: Strategy, residue: u64) {
    if let Ok(number) = std::env::var("HK_TEST_HISTORY") {
        let number: u64 = number.parse().expect("HK_TEST_HISTORY is a number");
        if number % 4 == residue {
            let history = History::new(number, strategy);
            println!("{history:#?}");
            play(&history, true);
        }
        return;
    }
    let long = std::env::var("HK_TEST_LONG").is_ok_and(|value| value == "yes");
    let count = if long { HISTORIES_LONG } else { HISTORIES };
    for number in (0..count).map(|n| n * 4 + residue) {
        let history = History::new(number, strategy);
        if breaks(&history).is_some() {
            let history = shorten(history);
            let why = breaks(&history).unwrap_or_default();
            panic!("history {number} breaks a promise: {why}\n{history:#?}");
        }
    }
}

/// Plays it; every eighth is played twice, and has to lead to the same.
fn play(history: &History, aloud: bool) {
    let mut world = World::new(history, aloud);
    world.live_through(history);
    if history.number % 32 < 4 {
        let mut again = World::new(history, false);
        again.live_through(history);
        assert!(world.actions() == again.actions(), "a replay leads to other actions");
    }
}

/// What is wrong, if something is.
fn breaks(history: &History) -> Option<String> {
    hush();
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| play(history, false)));
    QUIET.set(false);
    let panic = result.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// Leaves out moves for as long as what is left still breaks a promise.
fn shorten(mut history: History) -> History {
    let mut chunk = history.moves.len().max(1);
    while chunk > 0 {
        let mut at = 0;
        while at < history.moves.len() {
            let end = (at + chunk).min(history.moves.len());
            let moves: Vec<Move> = history.moves[..at].iter().chain(&history.moves[end..]).cloned().collect();
            let shorter = History { moves, ..history.clone() };
            if breaks(&shorter).is_some() {
                history = shorter;
            } else {
                at = end;
            }
        }
        chunk /= 2;
    }
    history
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The panics of histories under trial are not printed: the last one is told in the end.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
}
