//! Random histories against the rules: whatever workers, the kernel and people do, in any order.
//!
//! The world around the machine is played by [`World`]: processes that answer, refuse, talk
//! nonsense, go silent or die; messages that are still on their way when they are overtaken by
//! events; a clock that jumps. It knows from its own books who can really be writing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::event::{Action, Event, Outcome, Word, WorkerId};
use super::phase::Phase;
use super::state::{MAX_SERVING, MAX_WORKERS, State};

const OFFERS: u16 = 2;

/// A process of the world, with what it believes.
#[derive(Debug, Default)]
struct Process {
    runs: bool,
    closed: bool,
    /// It holds a grant that it has not given back.
    writes: bool,
    /// What it will answer, in order.
    answers: VecDeque<Word>,
}

struct World {
    state: State,
    now: Duration,
    processes: BTreeMap<WorkerId, Process>,
    orders: VecDeque<WorkerId>,
    progress: u64,
    newest_epoch: u64,
    /// Whether a spare has ever been wanted.
    ever_spare: bool,
    begun: u64,
    concluded: u64,
    exited: bool,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::new(OFFERS, 0, 99),
            now: Duration::from_secs(1),
            processes: BTreeMap::new(),
            orders: VecDeque::new(),
            progress: 0,
            newest_epoch: 0,
            ever_spare: false,
            begun: 0,
            concluded: 0,
            exited: false,
        };
        world.feed(Event::Start);
        world
    }

    fn feed(&mut self, event: Event) {
        self.ever_spare |= event == Event::Spare(true);
        let actions = self.state.step(event, self.now);
        for action in actions {
            self.act(action);
        }
        let most = if self.ever_spare { MAX_WORKERS } else { MAX_SERVING };
        assert!(self.state.workers().len() <= most);
        assert!(self.processes.len() <= most, "{:?}", self.processes);
        let spares = self.state.workers().iter().filter(|worker| {
            worker.phase.is_candidate() && self.state.candidate() != Some(worker.id)
        });
        assert!(spares.count() <= 1 || self.state.leaving().is_some());
        let writers = self.processes.values().filter(|process| process.writes).count();
        assert!(writers <= 1, "{writers} processes write");
        assert_eq!(self.begun - self.concluded, u64::from(self.state.in_takeover()));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Begin(_) => self.begun += 1,
            Action::Promote(worker, _) => {
                assert!(self.processes.contains_key(&worker), "what it is about exists");
                self.begun += 1;
            }
            Action::Spawn { worker, .. } => {
                assert!(!self.exited);
                self.processes.insert(worker, Process::default());
                self.orders.push_back(worker);
            }
            Action::Hello { worker, .. } => {
                self.answer(worker, [Word::Welcome { newest: 1, oldest: 1 }]);
            }
            Action::Offer(worker) => self.answer(
                worker,
                (0..OFFERS).map(Word::Accepted).chain([Word::Ready]).collect::<Vec<_>>(),
            ),
            Action::Grant(worker, epoch) => {
                assert!(epoch > self.newest_epoch, "epochs grow");
                self.newest_epoch = epoch;
                let others = self.processes.iter().any(|(id, p)| *id != worker && p.writes);
                assert!(!others, "granted while another may write");
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.writes = true;
                }
                self.answer(worker, [Word::Granted(epoch)]);
            }
            // It goes on writing until it has answered.
            Action::Release(worker) => self.answer(worker, [Word::Released]),
            Action::Leave(worker) => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.answers.clear();
                }
            }
            // The kernel may take its time: the process stays until it is reaped.
            Action::Kill(_) => {}
            Action::Conclude(outcome) => {
                self.concluded += 1;
                if let Outcome::Granted(worker, epoch) = outcome {
                    assert!(matches!(
                        self.state.phase(worker),
                        Some(Phase::Granted { epoch: e, .. }) if e == epoch
                    ));
                }
            }
            Action::Exit(_) => {
                assert!(self.processes.is_empty(), "left a process behind");
                self.exited = true;
            }
        }
    }

    fn answer(&mut self, worker: WorkerId, words: impl IntoIterator<Item = Word>) {
        if let Some(process) = self.processes.get_mut(&worker) {
            process.answers.extend(words);
        }
    }

    /// One thing happens; `dice` decides which.
    fn happen(&mut self, dice: (u8, u8)) {
        let ids: Vec<_> = self.processes.keys().copied().collect();
        let some = (!ids.is_empty()).then(|| ids[usize::from(dice.1) % ids.len()]);
        match (dice.0 % 16, some) {
            (0, _) => self.feed(Event::Reload),
            (1, _) => self.pass(Duration::from_millis(u64::from(dice.1) * 20)),
            (2, _) => self.pass(Duration::from_millis(u64::from(dice.1))),
            (3, Some(id)) => self.reap(id),
            (4, Some(id)) => self.close(id),
            (5, Some(id)) => self.feed(Event::Fault(id, "nonsense".to_owned())),
            (6, Some(id)) if dice.1.is_multiple_of(4) => {
                self.say(id, Word::Refused("no".to_owned()));
            }
            (7, Some(id)) if dice.1.is_multiple_of(4) => {
                self.say(id, Word::Granted(u64::from(dice.1)))
            }
            (8, _) if dice.1.is_multiple_of(4) => {
                if let Some(id) = self.orders.pop_front() {
                    self.processes.remove(&id);
                    self.feed(Event::SpawnFailed(id, "no such file".to_owned()));
                }
            }
            (8 | 9, _) => self.spawn(),
            (10, _) if dice.1.is_multiple_of(4) => self.feed(Event::Spare(dice.1 & 4 == 0)),
            (_, Some(id)) => self.speak(id),
            _ => self.spawn(),
        }
    }

    fn spawn(&mut self) {
        if let Some(id) = self.orders.pop_front() {
            self.processes.get_mut(&id).expect("ordered").runs = true;
            self.feed(Event::Spawned(id));
        }
    }

    /// The next thing `id` has to say reaches the supervisor.
    fn speak(&mut self, id: WorkerId) {
        let process = self.processes.get_mut(&id).expect("chosen among the living");
        if !process.runs || process.closed {
            return;
        }
        self.progress += 1;
        let word = process
            .answers
            .pop_front()
            .unwrap_or(Word::Heartbeat { epoch: self.newest_epoch, progress: self.progress });
        if word == Word::Released {
            process.writes = false;
        }
        self.feed(Event::Said(id, word));
    }

    fn say(&mut self, id: WorkerId, word: Word) {
        let process = &self.processes[&id];
        if process.runs && !process.closed {
            self.feed(Event::Said(id, word));
        }
    }

    fn close(&mut self, id: WorkerId) {
        let process = self.processes.get_mut(&id).expect("chosen among the living");
        if process.runs && !process.closed {
            process.closed = true;
            self.feed(Event::Closed(id));
        }
    }

    fn reap(&mut self, id: WorkerId) {
        if self.processes[&id].runs {
            self.processes.remove(&id);
            self.feed(Event::Reaped(id, "killed by SIGKILL".to_owned()));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.feed(Event::Tick);
    }

    /// One writer, and a spare that is ready if one is wanted.
    fn assert_as_many_as_wanted(&self) {
        let spare = self.state.spare().map(|spare| spare.phase);
        let is_ready = matches!(spare, Some(Phase::Shadow { .. }));
        assert_eq!(is_ready, self.state.keeps_spare, "{spare:?}");
        assert_eq!(self.processes.len(), 1 + usize::from(is_ready), "{:?}", self.processes);
    }

    /// Faults stop: processes start, speak when they have something to say, and die when killed.
    fn calm_down(&mut self) {
        for _ in 0..1000 {
            self.spawn();
            for id in self.processes.keys().copied().collect::<Vec<_>>() {
                match self.state.phase(id) {
                    Some(Phase::Dying { .. } | Phase::Leaving) => self.reap(id),
                    _ if self.processes[&id].closed => self.reap(id),
                    _ => self.speak(id),
                }
            }
            self.pass(Duration::from_millis(50));
        }
    }
}

fn dice() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec(any::<(u8, u8)>(), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Never two writers, at most two processes, growing epochs: asserted by the world at every
    /// step. And when faults stop, somebody writes and nothing is under way.
    #[test]
    fn whatever_happens_one_writer_at_most_and_one_in_the_end(dice in dice()) {
        let mut world = World::new();
        dice.into_iter().for_each(|dice| world.happen(dice));
        world.calm_down();
        let writer = world.state.writer().expect("somebody writes");
        prop_assert!(world.processes[&writer].writes);
        prop_assert!(!world.state.in_takeover());
        prop_assert_eq!(world.state.epoch(), world.newest_epoch);
        world.assert_as_many_as_wanted();
        // And once a spare is wanted, that is there, too.
        world.feed(Event::Spare(true));
        world.calm_down();
        prop_assert_eq!(world.state.writer(), Some(writer), "the writer is left in peace");
        world.assert_as_many_as_wanted();
    }

    /// A stop at any moment ends with no process left.
    #[test]
    fn whatever_happens_a_stop_ends_it(dice in dice()) {
        let mut world = World::new();
        dice.into_iter().for_each(|dice| world.happen(dice));
        world.feed(Event::Stop);
        world.calm_down();
        prop_assert!(world.exited);
    }

    /// The same history always leads to the same state.
    #[test]
    fn histories_can_be_replayed(dice in dice()) {
        let run = || {
            let mut world = World::new();
            dice.iter().for_each(|dice| world.happen(*dice));
            world.state
        };
        prop_assert_eq!(run(), run());
    }
}
