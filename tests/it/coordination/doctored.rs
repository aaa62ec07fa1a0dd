//! A checker that finds nothing proves nothing: a history in which all is well, and the same with each rule broken once.

use super::{
    checker::{Wrong, check},
    history::{Deed, Entry, Grant, Left, Mode, Said, Time, Use},
};

const LEASE: Time = 1_000;

fn entry(who: &str, from: Time, deed: Deed) -> Entry {
    Entry { who: who.to_owned(), from, to: from + 5, deed }
}

fn claim(who: &str, from: Time, task: &str, fence: u64) -> Entry {
    let names = vec![format!("task/{task}")];
    let grant =
        Grant { thing: task.to_owned(), fence, mode: Mode::Exclusive, names, lease: LEASE, limit: Some(3 * LEASE) };
    entry(who, from, Deed::Given(grant))
}

fn lock(who: &str, from: Time, fence: u64, mode: Mode, names: &[&str]) -> Entry {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let grant = Grant { thing: format!("lock{fence}"), fence, mode, names, lease: LEASE, limit: None };
    entry(who, from, Deed::Given(grant))
}

fn used(who: &str, from: Time, fence: u64, what: Use, said: Said) -> Entry {
    entry(who, from, Deed::Used { fence, what, said })
}

fn done(who: &str, from: Time, fence: u64, what: Use) -> Entry {
    used(who, from, fence, what, Said::Done)
}

fn died(who: &str, from: Time) -> Entry {
    entry(who, from, Deed::Died)
}

fn shown(from: Time, task: &str, done_by: Option<u64>) -> Entry {
    entry("viewer", from, Deed::Shown { thing: task.to_owned(), done_by })
}

fn sent(from: Time, message: &str, said: Said) -> Entry {
    entry("a", from, Deed::Sent { message: message.to_owned(), said })
}

fn received(from: Time, message: &str) -> Entry {
    entry("b", from, Deed::Received { message: message.to_owned() })
}

fn acknowledged(from: Time, message: &str) -> Entry {
    entry("b", from, Deed::Acknowledged { message: message.to_owned(), said: Said::Done })
}

fn left(tasks: &[(&str, Option<u64>)]) -> Left {
    Left { tasks: tasks.iter().map(|(task, by)| ((*task).to_owned(), *by)).collect(), ..Left::default() }
}

/// Everything that may happen, and nothing that may not.
fn sound() -> (Vec<Entry>, Left) {
    let history = vec![
        // A task that a dead holder leaves to the next, who is late but alive.
        claim("a#1", 0, "t1", 1),
        done("a#1", 100, 1, Use::Renew),
        died("a#1", 1_000),
        claim("b#1", 1_010, "t1", 2),
        shown(1_500, "t1", None),
        done("b#1", 1_900, 2, Use::Renew),
        used("b#1", 2_000, 2, Use::Complete, Said::Unknown),
        done("b#1", 2_010, 2, Use::Complete),
        shown(2_100, "t1", Some(2)),
        // One that fails once, and whose holder does not hear that it was done.
        claim("c#1", 3_000, "t2", 3),
        done("c#1", 3_010, 3, Use::Fail),
        claim("a#2", 3_050, "t2", 4),
        done("c#1", 3_060, 3, Use::Fail),
        used("a#2", 3_100, 4, Use::Complete, Said::Unknown),
        // A lease that ends, and a limit.
        claim("a#2", 4_000, "t3", 5),
        claim("b#1", 5_000, "t3", 6),
        used("a#2", 5_010, 5, Use::Complete, Said::Stale),
        done("b#1", 5_900, 6, Use::Renew),
        done("b#1", 6_800, 6, Use::Renew),
        done("b#1", 7_700, 6, Use::Renew),
        claim("c#1", 8_005, "t3", 7),
        done("c#1", 8_100, 7, Use::Complete),
        // Readers beside each other, a writer in his own way, a lock that allows less, and one that allows more.
        lock("a#2", 9_000, 8, Mode::Read, &["src/"]),
        lock("b#1", 9_010, 9, Mode::Read, &["src/a.rs"]),
        lock("c#1", 9_020, 10, Mode::Write, &["docs"]),
        lock("c#1", 9_030, 11, Mode::Write, &["docs/index.md"]),
        done("b#1", 9_040, 9, Use::Release),
        done("a#2", 9_050, 8, Use::Strengthen),
        lock("a#2", 9_050, 12, Mode::Write, &["src/"]),
        done("a#2", 9_100, 12, Use::Weaken(Mode::Read)),
        lock("b#1", 9_110, 13, Mode::Read, &["src/b.rs"]),
        used("a#2", 9_120, 8, Use::Renew, Said::Stale),
        // A message that is delivered twice, one that is there still, and one of which nobody knows whether it was sent.
        sent(100, "m1", Said::Done),
        received(110, "m1"),
        received(400, "m1"),
        acknowledged(410, "m1"),
        sent(500, "m2", Said::Done),
        sent(510, "m3", Said::Unknown),
        received(600, "m3"),
    ];
    let mut left = left(&[("t1", Some(2)), ("t2", Some(4)), ("t3", Some(7))]);
    left.held.push(("b#1".to_owned(), 13));
    left.messages.extend(["m2".to_owned(), "m3".to_owned()]);
    (history, left)
}

/// Adds to the sound history, and finds this and nothing else.
#[track_caller]
fn finds(more: &[Entry], change: impl FnOnce(&mut Vec<Entry>, &mut Left), wrong: &[Wrong]) {
    let (mut history, mut left) = sound();
    history.extend_from_slice(more);
    change(&mut history, &mut left);
    assert_eq!(check(&history, &left), wrong);
}

/// The end says this of a task.
fn ends(task: &str, done_by: Option<u64>) -> impl Fn(&mut Vec<Entry>, &mut Left) {
    move |_, left| left.tasks.extend([(task.to_owned(), done_by)])
}

fn forgets(message: &str) -> impl Fn(&mut Vec<Entry>, &mut Left) {
    move |_, left| left.messages.retain(|known| known != message)
}

#[test]
fn a_sound_history_is_not_accused() {
    finds(&[], |_, _| {}, &[]);
}

#[test]
fn two_holders_of_a_task() {
    let more = [claim("a#2", 20_000, "t4", 20), claim("b#1", 20_500, "t4", 21), done("b#1", 20_510, 21, Use::Complete)];
    let end = ends("t4", Some(21));
    finds(&more, &end, &[Wrong::TwoHolders(20, 21)]);
    // Once its lease can have ended it is no fault.
    let mut later = more.to_vec();
    (later[1].from, later[1].to) = (20_995, 21_000);
    (later[2].from, later[2].to) = (21_100, 21_105);
    finds(&later, &end, &[]);
    // Nor if its holder was being killed then.
    finds(&[more.as_slice(), &[died("a#2", 20_400)]].concat(), &end, &[]);
    // A renewal holds it.
    later.push(done("a#2", 20_300, 20, Use::Renew));
    finds(&later, &end, &[Wrong::TwoHolders(20, 21)]);
}

#[test]
fn a_claim_beside_a_claim_whose_end_is_refused_or_too_late() {
    let more = |said| {
        [
            claim("a#2", 20_000, "t4", 20),
            used("a#2", 20_100, 20, Use::Release, said),
            claim("b#1", 20_500, "t4", 21),
            done("b#1", 20_510, 21, Use::Complete),
        ]
    };
    let end = ends("t4", Some(21));
    finds(&more(Said::Done), &end, &[]);
    finds(&more(Said::Unknown), &end, &[]);
    finds(&more(Said::Stale), &end, &[Wrong::TwoHolders(20, 21), Wrong::GoodRefused(20)]);
}

#[test]
fn two_holders_of_a_lock() {
    for (modes, names, excluded) in [
        ([Mode::Read, Mode::Write], ["x", "x"], true),
        ([Mode::Write, Mode::Read], ["x/", "x/y"], true),
        ([Mode::Write, Mode::Write], ["x/y/z", "x"], true),
        ([Mode::Exclusive, Mode::Read], ["x", "x/"], true),
        ([Mode::Read, Mode::Read], ["x", "x"], false),
        ([Mode::Write, Mode::Write], ["x", "xy"], false),
        ([Mode::Exclusive, Mode::Exclusive], ["x/a", "x/b"], false),
    ] {
        let more = [lock("a#2", 20_000, 20, modes[0], &names[..1]), lock("b#1", 20_010, 21, modes[1], &names[1..])];
        let wrong: &[Wrong] = if excluded { &[Wrong::TwoHolders(20, 21)] } else { &[] };
        finds(&more, |_, _| {}, wrong);
    }
    let own = |mode| [lock("a#2", 20_000, 20, mode, &["x"]), lock("a#2", 20_010, 21, Mode::Write, &["x"])];
    finds(&own(Mode::Write), |_, _| {}, &[]);
    finds(&own(Mode::Exclusive), |_, _| {}, &[Wrong::TwoHolders(20, 21)]);
}

#[test]
fn a_lock_that_allows_less_lets_in_those_that_it_allows_and_no_others() {
    let more = |mode, from| {
        [
            lock("a#2", 20_000, 20, Mode::Write, &["x"]),
            done("a#2", 20_100, 20, Use::Weaken(Mode::Read)),
            lock("b#1", from, 21, mode, &["x"]),
        ]
    };
    finds(&more(Mode::Read, 20_110), |_, _| {}, &[]);
    finds(&more(Mode::Read, 20_050), |_, _| {}, &[Wrong::TwoHolders(20, 21)]);
    finds(&more(Mode::Write, 20_110), |_, _| {}, &[Wrong::TwoHolders(20, 21)]);
}

#[test]
fn a_token_that_comes_twice_or_does_not_grow() {
    finds(&[lock("a#2", 20_000, 13, Mode::Read, &["y"])], |_, _| {}, &[Wrong::TokenTwice(13)]);
    let more = [lock("a#2", 20_000, 21, Mode::Read, &["y"]), lock("a#2", 20_100, 20, Mode::Read, &["z"])];
    finds(&more, |_, _| {}, &[Wrong::TokenBackwards { earlier: 21, later: 20 }]);
    // Side by side they may be given in either order.
    let more = [lock("a#2", 20_000, 21, Mode::Read, &["y"]), lock("a#2", 20_003, 20, Mode::Read, &["z"])];
    finds(&more, |_, _| {}, &[]);
}

#[test]
fn a_stale_token_that_succeeds() {
    let own = [lock("a#2", 20_000, 20, Mode::Read, &["y"]), done("a#2", 20_100, 20, Use::Release)];
    finds(&[&own[..], &[done("a#2", 20_200, 20, Use::Release)]].concat(), |_, _| {}, &[]);
    let renewed = [&own[..], &[done("a#2", 20_200, 20, Use::Renew)]].concat();
    finds(&renewed, |_, _| {}, &[Wrong::StaleSucceeded(20)]);
    let dead = [lock("d#1", 20_000, 20, Mode::Read, &["y"]), died("d#1", 20_100), done("d#1", 20_200, 20, Use::Renew)];
    finds(&dead, |_, _| {}, &[Wrong::StaleSucceeded(20)]);
    let fails =
        [claim("a#2", 20_000, "t4", 20), done("a#2", 20_100, 20, Use::Complete), done("a#2", 20_200, 20, Use::Fail)];
    let end = ends("t4", Some(20));
    finds(&fails, end, &[Wrong::StaleSucceeded(20)]);
    // A token whose right somebody else has got meanwhile: then nothing can have ended the first one before.
    let late = [
        claim("a#2", 20_000, "t4", 20),
        claim("b#1", 21_100, "t4", 21),
        done("a#2", 21_200, 20, Use::Renew),
        done("b#1", 21_300, 21, Use::Complete),
    ];
    let end = ends("t4", Some(21));
    finds(&late, end, &[Wrong::TwoHolders(20, 21)]);
    finds(&[done("a#2", 20_000, 77, Use::Renew)], |_, _| {}, &[Wrong::NeverGiven(77)]);
}

#[test]
fn a_good_token_that_is_refused() {
    let more = |from| {
        [
            lock("a#2", 20_000, 20, Mode::Read, &["y"]),
            done("a#2", 20_500, 20, Use::Renew),
            used("a#2", from, 20, Use::Renew, Said::Stale),
        ]
    };
    finds(&more(21_000), |_, _| {}, &[Wrong::GoodRefused(20)]);
    finds(&more(21_500), |_, _| {}, &[]);
    finds(&[&more(21_000)[..], &[died("a#2", 20_900)]].concat(), |_, _| {}, &[]);
}

#[test]
fn a_task_that_is_done_twice_or_given_away_when_it_is_done() {
    let again = [claim("a#2", 20_000, "t1", 20)];
    finds(&again, |_, _| {}, &[Wrong::GivenWhenDone("t1".to_owned())]);
    let twice = [again[0].clone(), done("a#2", 20_100, 20, Use::Complete)];
    let wrong = [
        Wrong::DoneTwice("t1".to_owned()),
        Wrong::GivenWhenDone("t1".to_owned()),
        // The end can name one of them only.
        Wrong::CompletionLost("t1".to_owned()),
    ];
    finds(&twice, |_, _| {}, &wrong);
}

#[test]
fn a_completion_that_is_lost_or_that_nobody_has_said() {
    let lost = Wrong::CompletionLost("t1".to_owned());
    finds(&[shown(2_200, "t1", None)], |_, _| {}, std::slice::from_ref(&lost));
    let never = Wrong::NeverDone("t1".to_owned());
    finds(&[], ends("t1", None), &[lost, never]);
    finds(&[shown(1_600, "t1", Some(2))], |_, _| {}, &[Wrong::DoneByNobody("t1".to_owned())]);
    let undone = ends("t2", None);
    finds(&[], undone, &[Wrong::NeverDone("t2".to_owned())]);
    let nobody = ends("t2", Some(3));
    finds(&[], nobody, &[Wrong::DoneByNobody("t2".to_owned())]);
}

#[test]
fn what_a_dead_holder_has_at_the_end() {
    finds(&[], |_, left| left.held.push(("a#1".to_owned(), 9)), &[Wrong::LeftBehind(9)]);
}

#[test]
fn a_message_that_is_lost_or_delivered_when_it_must_not_be() {
    finds(&[], forgets("m2"), &[Wrong::MessageLost("m2".to_owned())]);
    finds(&[], forgets("m3"), &[]);
    finds(&[received(500, "m1")], |_, _| {}, &[Wrong::WronglyDelivered("m1".to_owned())]);
    finds(&[received(500, "m9")], |_, _| {}, &[Wrong::WronglyDelivered("m9".to_owned())]);
}
