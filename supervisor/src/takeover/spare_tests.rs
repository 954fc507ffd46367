//! The rules about the spare, one by one.

use std::time::Duration;

use holdfast_protocol::handover::Occasion;

use super::deadline;
use super::event::{Action, Cause, Event, Outcome, Word, WorkerId};
use super::phase::Phase;
use super::rule_tests::{Bench, begin, failed};
use super::state::MAX_WORKERS;

/// The order to start the spare `id`.
fn spare(id: u64, epoch: u64) -> Vec<Action> {
    vec![Action::Spawn { worker: WorkerId(id), epoch, occasion: Occasion::Standby }]
}

fn promoted(id: u64, cause: Cause) -> Action {
    Action::Promote(WorkerId(id), cause)
}

/// Worker 0 is granted, and the spare 1 is ready.
fn guarded() -> Bench {
    let mut bench = Bench::serving();
    assert_eq!(bench.on(Event::Spare(true)), spare(1, 2));
    assert_eq!(bench.grow(1), [], "a spare asks for nothing");
    bench
}

#[test]
fn a_spare_is_started_once_a_worker_writes() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(Event::Spare(true)), []);
    bench.on(Event::Start);
    bench.grow(0);
    let actions = bench.say(0, Word::Granted(1));
    assert_eq!(actions[1..], spare(1, 2));
    assert_eq!(bench.state.spare().map(|spare| spare.id), Some(WorkerId(1)));
    assert!(!bench.state.in_takeover() && !bench.state.awaits_takeover());
}

#[test]
fn a_spare_is_granted_as_soon_as_the_writer_is_reaped_and_another_one_started() {
    let mut bench = guarded();
    assert_eq!(bench.reap(0), [promoted(1, Cause::Crash), Action::Grant(WorkerId(1), 2)]);
    let actions = bench.say(1, Word::Granted(2));
    assert_eq!(actions[0], Action::Conclude(Outcome::Granted(WorkerId(1), 2)));
    assert_eq!(actions[1..], spare(2, 3));
}

#[test]
fn a_spare_is_not_granted_before_the_writer_is_reaped() {
    let mut bench = guarded();
    let closed = bench.on(Event::Closed(WorkerId(0)));
    assert_eq!(closed, [Action::Kill(WorkerId(0)), promoted(1, Cause::Crash)]);
    assert_eq!(bench.reap(0), [Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_spare_that_is_on_its_way_is_taken_all_the_same() {
    let mut bench = Bench::serving();
    bench.on(Event::Spare(true));
    assert_eq!(bench.reap(0), [promoted(1, Cause::Crash)]);
    assert_eq!(bench.grow(1), [Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_spare_that_fails_after_it_was_taken_is_a_takeover_that_failed() {
    let mut bench = Bench::serving();
    bench.on(Event::Spare(true));
    bench.reap(0);
    let actions = bench.reap(1);
    assert_eq!(actions[0], failed("it ended: killed by SIGKILL"));
    assert_eq!(actions[1..], begin(Cause::Crash, 2, 2, Occasion::Recovery));
}

#[test]
fn what_becomes_of_a_spare_is_nothing_to_the_writer() {
    type Failure = (&'static str, fn(&mut Bench) -> Vec<Action>);
    let failures: [Failure; 4] = [
        ("death", |_| Vec::new()),
        ("end of file", |bench| bench.on(Event::Closed(WorkerId(1)))),
        ("refusal", |bench| bench.say(1, Word::Refused("no".to_owned()))),
        ("nonsense", |bench| bench.say(1, Word::Granted(77))),
    ];
    for (failure, fail) in failures {
        let mut bench = guarded();
        let killed = fail(&mut bench);
        assert!(killed.iter().all(|action| *action == Action::Kill(WorkerId(1))), "{failure}");
        assert_eq!(bench.reap(1), spare(2, 2), "{failure}");
        assert_eq!((bench.state.writer(), bench.state.epoch()), (Some(WorkerId(0)), 1));
        assert!(!bench.state.in_takeover(), "{failure}");
    }
}

#[test]
fn a_spare_that_makes_no_progress_is_replaced() {
    let mut bench = guarded();
    let beat = |bench: &mut Bench, id, epoch, progress| {
        assert_eq!(bench.say(id, Word::Heartbeat { epoch, progress }), []);
    };
    for progress in 1..10 {
        beat(&mut bench, 0, 1, progress);
        beat(&mut bench, 1, 0, progress);
        assert_eq!(bench.pass(deadline::SILENCE - Duration::from_millis(1)), []);
    }
    beat(&mut bench, 0, 1, 10);
    // It lives, and stands still.
    beat(&mut bench, 1, 0, 9);
    assert_eq!(bench.pass(Duration::from_millis(1)), [Action::Kill(WorkerId(1))]);
    assert_eq!(bench.reap(1), spare(2, 2));
}

#[test]
fn spares_that_never_get_ready_are_started_ever_more_slowly_and_delay_no_takeover() {
    let mut bench = Bench::serving();
    let mut started = u32::from(!bench.on(Event::Spare(true)).is_empty());
    for progress in 0..600 {
        bench.say(0, Word::Heartbeat { epoch: 1, progress });
        while let Some(id) = bench.state.spare().map(|spare| spare.id) {
            let actions = bench.on(Event::SpawnFailed(id, "no such file".to_owned()));
            started += u32::from(!actions.is_empty());
        }
        started += u32::from(!bench.pass(Duration::from_secs(1)).is_empty());
    }
    assert!((25..60).contains(&started), "{started} starts in ten minutes");
    if let Some(id) = bench.state.spare().map(|spare| spare.id) {
        bench.on(Event::SpawnFailed(id, "no such file".to_owned()));
    }
    let due = bench.state.next_deadline().expect("a retry or a heartbeat is");
    assert!(due > bench.now, "{due:?}");
    assert_eq!(bench.reap(0)[0], Action::Begin(Cause::Crash), "at once");
}

#[test]
fn a_reload_goes_through_shadow_beside_the_spare_and_ends_it() {
    let mut bench = guarded();
    assert_eq!(bench.on(Event::Reload), begin(Cause::Reload, 2, 2, Occasion::Reload));
    assert_eq!(bench.state.workers().len(), MAX_WORKERS);
    assert_eq!(bench.grow(2), [Action::Release(WorkerId(0))]);
    assert_eq!(bench.say(0, Word::Released), [Action::Grant(WorkerId(2), 2)]);
    assert_eq!(
        bench.say(2, Word::Granted(2)),
        [
            Action::Leave(WorkerId(0)),
            Action::Kill(WorkerId(1)),
            Action::Conclude(Outcome::Granted(WorkerId(2), 2))
        ]
    );
    assert_eq!(bench.state.spare(), None, "a former one is never promoted");
    assert_eq!(bench.reap(1), []);
    assert_eq!(bench.reap(0), spare(3, 3), "when everything else is settled");
}

#[test]
fn a_reload_that_fails_leaves_the_spare() {
    let mut bench = guarded();
    bench.on(Event::Reload);
    bench.say(2, Word::Refused("no".to_owned()));
    let concluded = bench.reap(2);
    assert!(matches!(concluded[..], [Action::Conclude(Outcome::Failed(_))]), "{concluded:?}");
    assert_eq!(bench.state.spare().map(|spare| spare.id), Some(WorkerId(1)));
    assert_eq!(bench.reap(0), [promoted(1, Cause::Crash), Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_writer_that_dies_during_a_reload_is_replaced_by_the_new_one_or_if_that_fails_by_the_spare() {
    let mut bench = guarded();
    bench.on(Event::Reload);
    assert_eq!(bench.reap(0), []);
    assert_eq!(bench.grow(2), [Action::Grant(WorkerId(2), 2)]);

    let mut bench = guarded();
    bench.on(Event::Reload);
    bench.reap(0);
    let actions = bench.reap(2);
    assert!(matches!(actions[0], Action::Conclude(Outcome::Failed(_))), "{actions:?}");
    assert_eq!(actions[1..], [promoted(1, Cause::Crash), Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_reload_that_waits_is_not_served_by_a_spare() {
    let mut bench = Bench::midway();
    bench.on(Event::Spare(true));
    bench.say(1, Word::Granted(2));
    bench.on(Event::Reload);
    assert_eq!(bench.reap(0), begin(Cause::Reload, 2, 3, Occasion::Reload), "it comes first");

    let mut bench = guarded();
    bench.on(Event::Reload);
    bench.on(Event::Reload);
    bench.reap(0);
    let actions = bench.reap(2);
    assert_eq!(actions[1], promoted(1, Cause::Crash));
    let actions = bench.say(1, Word::Granted(2));
    assert_eq!(actions[1..], begin(Cause::Reload, 3, 3, Occasion::Reload));
}

#[test]
fn fifty_reloads_start_no_more_than_one_worker_beside_writer_and_spare() {
    let mut bench = guarded();
    for _ in 0..50 {
        bench.on(Event::Reload);
        assert_eq!(bench.state.workers().len(), MAX_WORKERS);
    }
}

#[test]
fn a_spare_that_is_not_wanted_any_more_is_ended_and_none_started() {
    let mut bench = guarded();
    assert_eq!(bench.on(Event::Spare(false)), [Action::Kill(WorkerId(1))]);
    assert_eq!(bench.reap(1), []);
    assert_eq!(bench.reap(0), begin(Cause::Crash, 2, 2, Occasion::Recovery));
}

#[test]
fn a_spare_that_is_not_wanted_before_it_runs_is_killed_when_it_does() {
    let mut bench = Bench::serving();
    bench.on(Event::Spare(true));
    bench.on(Event::Spare(false));
    assert_eq!(bench.on(Event::Spawned(WorkerId(1))), [Action::Kill(WorkerId(1))]);
    assert_eq!(bench.phase(1), Some(Phase::Dying { writer: false }));
}

#[test]
fn when_both_die_at_once_a_third_is_started() {
    let mut bench = guarded();
    bench.reap(0);
    let actions = bench.reap(1);
    assert!(matches!(actions[0], Action::Conclude(Outcome::Failed(_))), "{actions:?}");
    assert_eq!(actions[1..], begin(Cause::Crash, 2, 3, Occasion::Recovery));

    let mut bench = guarded();
    assert_eq!(bench.reap(1), spare(2, 2));
    assert_eq!(bench.reap(0), [promoted(2, Cause::Crash)]);
}

#[test]
fn a_stop_lets_the_spare_leave() {
    let mut bench = guarded();
    let actions = bench.on(Event::Stop);
    assert_eq!(actions, [Action::Leave(WorkerId(0)), Action::Leave(WorkerId(1))]);
    bench.reap(1);
    assert_eq!(bench.reap(0).len(), 1, "it ends, and nothing is started");
}
