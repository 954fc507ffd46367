//! Each rule of the machine, one by one.

use std::time::Duration;

use holdfast_protocol::handover::Occasion;

use super::event::{Action, Cause, Event, Exit, Outcome, Word, WorkerId};
use super::phase::Phase;
use super::state::State;
use super::{deadline, pace};

const OFFERS: u16 = 2;
const WELCOME: Word = Word::Welcome { newest: 1, oldest: 1 };

/// A machine and its clock.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Duration,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { state: State::new(OFFERS, 0, 1), now: Duration::from_secs(100) }
    }

    /// A machine whose worker 0 is granted.
    pub(super) fn serving() -> Self {
        let mut bench = Self::new();
        bench.on(Event::Start);
        bench.grow(0);
        assert_eq!(
            bench.say(0, Word::Granted(1)),
            [Action::Conclude(Outcome::Granted(WorkerId(0), 1))]
        );
        bench
    }

    /// A machine whose worker 0 is released and whose worker 1 is being granted.
    pub(super) fn midway() -> Self {
        let mut bench = Self::serving();
        bench.on(Event::Reload);
        assert_eq!(bench.grow(1), [Action::Release(WorkerId(0))]);
        assert_eq!(bench.say(0, Word::Released), [Action::Grant(WorkerId(1), 2)]);
        bench
    }

    pub(super) fn on(&mut self, event: Event) -> Vec<Action> {
        self.state.step(event, self.now)
    }

    pub(super) fn say(&mut self, id: u64, word: Word) -> Vec<Action> {
        self.on(Event::Said(WorkerId(id), word))
    }

    pub(super) fn reap(&mut self, id: u64) -> Vec<Action> {
        self.on(Event::Reaped(WorkerId(id), "killed by SIGKILL".to_owned()))
    }

    pub(super) fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.on(Event::Tick)
    }

    /// Takes worker `id` from its start to shadow; what its readiness led to.
    pub(super) fn grow(&mut self, id: u64) -> Vec<Action> {
        self.on(Event::Spawned(WorkerId(id)));
        assert_eq!(self.say(id, WELCOME), [Action::Offer(WorkerId(id))]);
        for index in 0..OFFERS {
            assert_eq!(self.say(id, Word::Accepted(index)), []);
        }
        self.say(id, Word::Ready)
    }

    pub(super) fn phase(&self, id: u64) -> Option<Phase> {
        self.state.phase(WorkerId(id))
    }
}

pub(super) fn begin(cause: Cause, id: u64, epoch: u64, occasion: Occasion) -> Vec<Action> {
    vec![Action::Begin(cause), Action::Spawn { worker: WorkerId(id), epoch, occasion }]
}

pub(super) fn failed(reason: &str) -> Action {
    Action::Conclude(Outcome::Failed(reason.to_owned()))
}

#[test]
fn the_first_worker_is_started_greeted_offered_and_granted() {
    let mut bench = Bench::new();
    assert_eq!(bench.on(Event::Start), begin(Cause::Start, 0, 1, Occasion::Start));
    let hello = Action::Hello { worker: WorkerId(0), epoch: 1, occasion: Occasion::Start };
    assert_eq!(bench.on(Event::Spawned(WorkerId(0))), [hello]);
    bench.say(0, WELCOME);
    bench.say(0, Word::Accepted(0));
    bench.say(0, Word::Accepted(1));
    assert_eq!(bench.say(0, Word::Ready), [Action::Grant(WorkerId(0), 1)]);
    assert_eq!(bench.state.writer(), None, "a grant counts when it is confirmed");
    bench.say(0, Word::Granted(1));
    assert_eq!(bench.state.writer(), Some(WorkerId(0)));
    assert_eq!(bench.state.epoch(), 1);
}

#[test]
fn epochs_go_on_from_the_recorded_one() {
    let mut state = State::new(1, 41, 1);
    let actions = state.step(Event::Start, Duration::ZERO);
    assert!(actions.contains(&Action::Spawn {
        worker: WorkerId(0),
        epoch: 42,
        occasion: Occasion::Start
    }));
}

#[test]
fn a_reload_grants_the_new_worker_after_the_old_let_go_and_only_then_lets_the_old_leave() {
    let mut bench = Bench::midway();
    assert_eq!(
        bench.say(1, Word::Granted(2)),
        [Action::Leave(WorkerId(0)), Action::Conclude(Outcome::Granted(WorkerId(1), 2))]
    );
    assert_eq!(bench.reap(0), []);
    assert_eq!(bench.state.workers().len(), 1);
}

#[test]
fn a_candidate_that_fails_before_its_grant_changes_nothing() {
    let steps: [(&str, &[Word]); 4] = [
        ("greeted", &[]),
        ("offered", &[WELCOME]),
        ("half offered", &[WELCOME, Word::Accepted(0)]),
        ("preparing", &[WELCOME, Word::Accepted(0), Word::Accepted(1)]),
    ];
    type Failure = (&'static str, fn(WorkerId) -> Event);
    let failures: [Failure; 4] = [
        ("refusal", |id| Event::Said(id, Word::Refused("no".to_owned()))),
        ("end of file", Event::Closed),
        ("protocol fault", |id| Event::Fault(id, "nonsense".to_owned())),
        ("nonsense", |id| Event::Said(id, Word::Granted(77))),
    ];
    for (step, words) in steps {
        for (failure, event) in failures {
            let mut bench = Bench::serving();
            bench.on(Event::Reload);
            bench.on(Event::Spawned(WorkerId(1)));
            words.iter().for_each(|word| drop(bench.say(1, word.clone())));
            assert_eq!(
                bench.on(event(WorkerId(1))),
                [Action::Kill(WorkerId(1))],
                "{step} {failure}"
            );
            let concluded = bench.reap(1);
            assert!(
                matches!(concluded[..], [Action::Conclude(Outcome::Failed(_))]),
                "{step} {failure}: {concluded:?}"
            );
            assert_eq!(bench.state.writer(), Some(WorkerId(0)), "{step} {failure}");
            assert_eq!(bench.state.epoch(), 1, "{step} {failure}");
        }
    }
}

#[test]
fn a_candidate_that_could_not_be_spawned_changes_nothing() {
    let mut bench = Bench::serving();
    bench.on(Event::Reload);
    assert_eq!(
        bench.on(Event::SpawnFailed(WorkerId(1), "no such file".to_owned())),
        [failed("it could not be started: no such file")]
    );
    assert_eq!(bench.state.writer(), Some(WorkerId(0)));
}

#[test]
fn each_step_has_its_deadline() {
    let steps: [(&[Word], Duration, &str); 3] = [
        (&[], deadline::GREETING, "answer the greeting"),
        (&[WELCOME], deadline::ACCEPTING, "accept the estate"),
        (&[WELCOME, Word::Accepted(0), Word::Accepted(1)], deadline::PREPARING, "get ready"),
    ];
    for (words, limit, duty) in steps {
        let mut bench = Bench::new();
        bench.on(Event::Start);
        bench.on(Event::Spawned(WorkerId(0)));
        words.iter().for_each(|word| drop(bench.say(0, word.clone())));
        assert_eq!(bench.pass(limit - Duration::from_nanos(1)), [], "{duty}");
        assert_eq!(bench.state.next_deadline(), Some(bench.now + Duration::from_nanos(1)));
        assert_eq!(bench.pass(Duration::from_nanos(1)), [Action::Kill(WorkerId(0))], "{duty}");
        let reason = format!("it did not {duty} within {limit:?}");
        assert_eq!(bench.reap(0)[0], failed(&reason));
    }
}

#[test]
fn offers_are_accepted_in_order() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.on(Event::Spawned(WorkerId(0)));
    bench.say(0, WELCOME);
    assert_eq!(bench.say(0, Word::Accepted(1)), [Action::Kill(WorkerId(0))]);
}

#[test]
fn a_worker_of_another_protocol_is_refused_with_both_ranges() {
    let mut bench = Bench::serving();
    bench.on(Event::Reload);
    bench.on(Event::Spawned(WorkerId(1)));
    bench.say(1, Word::Welcome { newest: 9, oldest: 8 });
    let Action::Conclude(Outcome::Failed(reason)) = bench.reap(1).remove(0) else {
        panic!("not concluded")
    };
    assert!(reason.contains("versions 8 to 9") && reason.contains("1 to 1"), "{reason}");
}

#[test]
fn an_old_worker_that_does_not_let_go_is_killed_and_nobody_is_granted_before_it_is_reaped() {
    let mut bench = Bench::serving();
    bench.on(Event::Reload);
    bench.grow(1);
    assert_eq!(bench.pass(deadline::RELEASING), [Action::Kill(WorkerId(0))]);
    assert_eq!(bench.say(0, Word::Released), [], "too late to be believed");
    assert_eq!(bench.reap(0), [Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_writer_that_closed_its_socket_may_still_write_until_it_is_reaped() {
    let mut bench = Bench::serving();
    let mut expected = vec![Action::Kill(WorkerId(0))];
    expected.extend(begin(Cause::Crash, 1, 2, Occasion::Recovery));
    assert_eq!(bench.on(Event::Closed(WorkerId(0))), expected);
    assert_eq!(bench.grow(1), []);
    assert_eq!(bench.reap(0), [Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn a_candidate_that_fails_its_grant_gives_it_back_once_reaped_under_a_new_epoch() {
    let mut bench = Bench::midway();
    assert_eq!(bench.on(Event::Closed(WorkerId(1))), [Action::Kill(WorkerId(1))]);
    assert_eq!(bench.phase(0), Some(Phase::Released));
    assert_eq!(bench.reap(1), [Action::Grant(WorkerId(0), 3)]);
    assert_eq!(bench.say(0, Word::Granted(3)), [failed("it ended: killed by SIGKILL")]);
    assert_eq!(bench.state.writer(), Some(WorkerId(0)));
}

#[test]
fn a_candidate_that_dies_while_the_old_one_lets_go_gives_the_grant_back() {
    let mut bench = Bench::serving();
    bench.on(Event::Reload);
    bench.grow(1);
    bench.reap(1);
    assert_eq!(bench.phase(0), Some(Phase::Releasing));
    assert_eq!(bench.say(0, Word::Released), [Action::Grant(WorkerId(0), 2)]);
    assert_eq!(bench.say(0, Word::Granted(2)), [failed("it ended: killed by SIGKILL")]);
}

#[test]
fn a_grant_is_confirmed_with_its_own_epoch_only() {
    let mut bench = Bench::midway();
    assert_eq!(bench.say(1, Word::Granted(1)), [Action::Kill(WorkerId(1))]);
}

#[test]
fn when_both_die_midway_a_third_is_started() {
    let mut bench = Bench::midway();
    assert_eq!(bench.reap(0), [], "the new one is still expected to serve");
    let actions = bench.reap(1);
    assert_eq!(actions[0], failed("it ended: killed by SIGKILL"));
    assert_eq!(actions[1..], begin(Cause::Crash, 2, 3, Occasion::Recovery));
}

#[test]
fn a_writer_that_dies_during_a_reload_is_replaced_by_the_candidate() {
    let mut bench = Bench::serving();
    bench.on(Event::Reload);
    assert_eq!(bench.reap(0), []);
    assert_eq!(bench.grow(1), [Action::Grant(WorkerId(1), 2)]);
}

#[test]
fn reloads_fold_into_the_running_takeover_and_one_more() {
    let mut bench = Bench::serving();
    assert_eq!(bench.on(Event::Reload), begin(Cause::Reload, 1, 2, Occasion::Reload));
    for _ in 0..50 {
        assert_eq!(bench.on(Event::Reload), []);
    }
    bench.grow(1);
    bench.say(0, Word::Released);
    let actions = bench.say(1, Word::Granted(2));
    assert_eq!(actions.len(), 2, "{actions:?}: the old process still takes its place");
    assert_eq!(bench.reap(0), begin(Cause::Reload, 2, 3, Occasion::Reload));
    bench.grow(2);
    bench.say(1, Word::Released);
    bench.say(2, Word::Granted(3));
    assert_eq!(bench.reap(1), [], "fifty requests are one takeover");
}

#[test]
fn an_old_worker_that_does_not_leave_is_killed() {
    let mut bench = Bench::midway();
    bench.say(1, Word::Granted(2));
    // The new one goes on making progress all the while.
    for progress in 1..=deadline::LEAVING.as_secs() {
        bench.say(1, Word::Heartbeat { epoch: 2, progress });
        let actions = bench.pass(Duration::from_secs(1));
        let due = progress == deadline::LEAVING.as_secs();
        assert_eq!(actions, if due { vec![Action::Kill(WorkerId(0))] } else { vec![] });
    }
    assert_eq!(bench.reap(0), []);
}

#[test]
fn a_writer_that_reports_no_progress_hangs() {
    for beat in [None, Some((1, 5)), Some((7, 6))] {
        let mut bench = Bench::serving();
        bench.say(0, Word::Heartbeat { epoch: 1, progress: 5 });
        bench.pass(deadline::SILENCE / 2);
        if let Some((epoch, progress)) = beat {
            bench.say(0, Word::Heartbeat { epoch, progress });
        }
        let actions = bench.pass(deadline::SILENCE / 2);
        assert_eq!(actions[0], Action::Kill(WorkerId(0)), "{beat:?}");
        assert_eq!(actions[1..], begin(Cause::Hang, 1, 2, Occasion::Recovery), "{beat:?}");
    }
}

#[test]
fn a_writer_that_reports_progress_does_not_hang() {
    let mut bench = Bench::serving();
    for progress in 1..100 {
        bench.say(0, Word::Heartbeat { epoch: 1, progress });
        assert_eq!(bench.pass(deadline::SILENCE - Duration::from_millis(1)), []);
    }
}

#[test]
fn two_hundred_kills_at_ten_a_second_are_each_answered_at_once() {
    let mut bench = Bench::serving();
    for n in 0..200 {
        bench.pass(Duration::from_millis(90));
        let actions = bench.reap(n);
        assert_eq!(actions[0], Action::Begin(Cause::Crash), "kill {n}");
        bench.pass(Duration::from_millis(10));
        bench.grow(n + 1);
        bench.say(n + 1, Word::Granted(n + 2));
    }
}

#[test]
fn workers_that_never_get_there_are_retried_ever_more_slowly_until_somebody_asks() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    let mut attempts = 1;
    for second in 0..600 {
        while let Some(worker) = bench.state.workers().first() {
            let id = worker.id;
            let actions = bench.on(Event::SpawnFailed(id, "no such file".to_owned()));
            attempts += actions.iter().filter(|a| matches!(a, Action::Begin(_))).count();
        }
        let _ = second;
        let actions = bench.pass(Duration::from_secs(1));
        attempts += actions.iter().filter(|a| matches!(a, Action::Begin(_))).count();
    }
    assert!((25..60).contains(&attempts), "{attempts} attempts in ten minutes");
    while let Some(id) = bench.state.workers().first().map(|worker| worker.id) {
        bench.on(Event::SpawnFailed(id, "no such file".to_owned()));
    }
    assert!(bench.state.backing_off_until() > Some(bench.now));
    assert_eq!(bench.on(Event::Reload)[0], Action::Begin(Cause::Start));
}

#[test]
fn the_first_failures_are_retried_without_delay() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    for n in 0..u64::from(pace::FREE_FAILURES) {
        let actions = bench.reap(n);
        assert_eq!(actions[1..], begin(Cause::Start, n + 1, 1, Occasion::Start));
    }
    assert_eq!(bench.reap(u64::from(pace::FREE_FAILURES)).len(), 1);
}

#[test]
fn a_stop_lets_every_worker_leave_and_ends_when_all_are_reaped() {
    let mut bench = Bench::midway();
    let actions = bench.on(Event::Stop);
    assert_eq!(
        actions,
        [
            Action::Leave(WorkerId(0)),
            Action::Leave(WorkerId(1)),
            failed("the supervisor is leaving")
        ]
    );
    assert_eq!(bench.reap(0), []);
    assert_eq!(bench.on(Event::Reload), []);
    assert_eq!(bench.reap(1), [Action::Exit(Exit::KeepingGovernance)]);
    assert_eq!(bench.on(Event::Stop), [], "it ends once");
}

#[test]
fn a_stop_kills_who_does_not_leave_in_time() {
    let mut bench = Bench::serving();
    bench.on(Event::Stop);
    assert_eq!(bench.pass(deadline::STOPPING), [Action::Kill(WorkerId(0))]);
    assert_eq!(bench.reap(0), [Action::Exit(Exit::KeepingGovernance)]);
}

#[test]
fn a_process_that_starts_after_the_stop_is_killed() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.on(Event::Stop);
    assert_eq!(bench.on(Event::Spawned(WorkerId(0))), [Action::Kill(WorkerId(0))]);
    assert_eq!(bench.reap(0), [Action::Exit(Exit::KeepingGovernance)]);
}

#[test]
fn a_removal_is_not_taken_back_by_a_stop() {
    for events in [[Event::Stop, Event::Uninstall], [Event::Uninstall, Event::Stop]] {
        let mut bench = Bench::serving();
        events.into_iter().for_each(|event| drop(bench.on(event)));
        assert_eq!(bench.reap(0), [Action::Exit(Exit::ToUninstall)]);
    }
}

#[test]
fn a_resumed_machine_has_a_writer_and_goes_on_with_its_epoch() {
    let resumed = || {
        let now = Duration::from_secs(100);
        Bench { state: State::resumed(OFFERS, 41, 1, now), now }
    };
    let mut bench = resumed();
    assert_eq!(bench.state.writer(), Some(WorkerId(0)));
    assert!(!bench.state.in_takeover() && !bench.state.awaits_takeover());
    assert_eq!(bench.say(0, Word::Heartbeat { epoch: 41, progress: 900 }), []);
    let mut expected = vec![Action::Kill(WorkerId(0))];
    expected.extend(begin(Cause::Hang, 1, 42, Occasion::Recovery));
    assert_eq!(bench.pass(deadline::SILENCE), expected, "it is watched");

    let mut bench = resumed();
    assert_eq!(bench.reap(0), begin(Cause::Crash, 1, 42, Occasion::Recovery));
    assert_eq!(bench.grow(1), [Action::Grant(WorkerId(1), 42)]);

    let mut bench = resumed();
    assert_eq!(bench.on(Event::Reload), begin(Cause::Reload, 1, 42, Occasion::Reload));
    assert_eq!(bench.grow(1), [Action::Release(WorkerId(0))]);
}
