//! P1, P2, P9, P12: what belongs to the process as a whole.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::*;

/// The signal of `abort()`.
const SIGABRT: i32 = 6;

/// Compiles a crate that holds nothing but the guard of ours, word for word, under a panic strategy.
fn guard_compiles(panic: &str) -> (bool, String) {
    let source = include_str!("../../src/lib.rs");
    let from = source.find("#[cfg(not(panic = \"unwind\"))]").expect("the guard is gone from lib.rs");
    let guard = &source[from..from + source[from..].find(';').unwrap() + 1];
    assert_eq!(guard.lines().count(), 2, "one attribute and one error: {guard}");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = dir.join(format!("guard_{panic}.rs"));
    std::fs::write(&file, guard).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--crate-type", "lib", "--emit", "metadata", "-C", &format!("panic={panic}"), "--out-dir"])
        .args([dir, &file])
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn p01_with_panic_abort_the_crate_does_not_compile() {
    let (compiled, errors) = guard_compiles("abort");
    assert!(!compiled && errors.contains("panic isolation rests on unwinding"), "{errors}");
    let (compiled, errors) = guard_compiles("unwind");
    assert!(compiled, "{errors}");
}

/// Our own program must not ask for it: the guard would refuse to build, and that late.
#[test]
fn p01_no_profile_of_the_workspace_aborts() {
    let manifest = include_str!("../../../Cargo.toml");
    let settings: Vec<_> = manifest.lines().filter(|line| line.trim_start().starts_with("panic")).collect();
    assert_eq!(settings, ["panic = \"unwind\""]);
}

/// A handler that panics while a value of its own is on the stack whose destructor panics, too.
async fn panic_with_a_bomb() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor, while the stack unwinds");
        }
    }
    let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
    let (root, _) = start(vec![child]);
    a.tell(Do::new(|_, _| {
        let _bomb = Bomb;
        panic!("in the handler");
    }))
    .unwrap();
    // If the process were to live, the next incarnation would answer.
    let _ = a.ask(Ping, PATIENCE).await;
    root.shutdown().await.unwrap();
}

/// The limit that stays: two panics at once on one stack are the end of the process, whoever catches. Hooks after a panic are ours to prevent
/// (F5); what a handler's own values do while it unwinds is not.
#[test]
fn p02_a_destructor_that_panics_in_the_unwinding_of_its_own_handler_aborts() {
    if role().is_some() {
        system(panic_with_a_bomb());
        println!("survived");
        return;
    }
    let (status, text) =
        alone("process::p02_a_destructor_that_panics_in_the_unwinding_of_its_own_handler_aborts", "bomb");
    assert_eq!(status.signal(), Some(SIGABRT), "{status}\n{text}");
    assert!(!text.contains("survived"), "{text}");
}

static HOOKED: AtomicUsize = AtomicUsize::new(0);

/// The panic hook belongs to the process, so this runs in one of its own. The hook that was there before hears of every panic but those of
/// children.
#[test]
fn p09_the_panic_hook_is_wrapped_and_not_replaced() {
    if role().is_none() {
        let (status, text) = alone("process::p09_the_panic_hook_is_wrapped_and_not_replaced", "hook");
        assert!(status.success() && text.contains("heard of 2"), "{status}\n{text}");
        return;
    }
    std::panic::set_hook(Box::new(|_| {
        HOOKED.fetch_add(1, Ordering::SeqCst);
    }));
    let other = || std::thread::spawn(|| panic!("somebody else's")).join().is_err();
    system(async move {
        for _ in 0..2 {
            let (child, a) = specimen(eager("a"), Manner::Well, &Arc::default());
            let (root, record) = start(vec![child]);
            a.tell(Boom).unwrap();
            assert_eq!(a.ask(Ping, PATIENCE).await, Ok(1));
            assert_eq!(record.panics("a"), ["in a handler"]);
            assert!(other());
            root.shutdown().await.unwrap();
        }
    });
    println!("heard of {}", HOOKED.load(Ordering::SeqCst));
}

/// `System::stop` drops everything at once (F13). The tree has to be through before, and there is one call for both.
#[test]
fn p12_the_tree_ends_in_order_before_the_system_does() {
    let seen = Arc::new(Seen::default());
    let system = actix::System::new();
    system.block_on(async {
        let children = ["a", "b", "c"].map(|name| specimen(eager(name), Manner::WindsDown, &seen).0);
        let (root, _) = start(children.into());
        root.started().await.unwrap();
        root.shutdown_system().await.unwrap();
    });
    // It returns, because the system was told to stop.
    system.run().unwrap();
    let each = |name| ["wound down", "dropped"].map(|what| format!("{name} {what}"));
    assert_eq!(seen.notes(), ["c", "b", "a"].map(each).concat());
}
