//! The world around the machine: at most one supervisor, the processes, what outlives both.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast::takeover::phase::Worker;
use holdfast::takeover::{Action, Event, Exit, Phase, State, Word, WorkerId};
use holdfast_protocol::handover::Occasion;

use super::process::{Message, OFFERS, OutOfTurn, Pid, Process, Run, Stage};

/// Decides the jitter of retries; any number will do.
const SEED: u64 = 7;

/// What keeps two writers apart, and what it is like without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Nothing is taken out. The machine waits for the release or the death of a writer, and a
    /// supervisor that starts again for the death of its former life's workers.
    Whole,
    /// A worker counts as dead as soon as it was sent SIGKILL.
    DeadOnceKilled,
    /// A worker counts as having let go as soon as it was asked to.
    ReleasedOnceAsked,
    /// Workers do not hold their supervisor's lock, so that the next one may start while they live:
    /// the kernel frees the locks of a process before it sends its children their parent-death
    /// signal, and a signal that was sent need not have taken effect.
    OrphansIgnored,
    /// The supervisor becomes another binary at any moment, and not only at a quiet one.
    UnquietSuccession,
}

/// How much may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Workers that crash, hang, refuse, are late, …
    pub faults: u8,
    /// Deaths of the supervisor.
    pub deaths: u8,
    /// Requests to reload.
    pub reloads: u8,
    /// Requests to become the binary on disk.
    pub successions: u8,
    /// Requests to stop or to uninstall.
    pub departures: u8,
    /// Heartbeats beyond those that only keep a writer from being taken for a hanging one.
    pub heartbeats: u8,
    /// Whether a spare is kept.
    pub spare: bool,
}

/// What must never happen, noted when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A grant under an epoch that is not newer than every one before.
    StaleEpoch(u64),
    /// A worker was told something that makes no sense to it.
    Nonsense(OutOfTurn),
    /// The machine speaks of a process that does not exist.
    Unknown(WorkerId),
    /// The supervisor ended and left a worker behind.
    LeftBehind,
    /// The supervisor became another binary, which does not know of a request to reload.
    Forgotten,
}

/// The supervisor's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supervisor {
    pub machine: State,
    /// Since its start.
    pub now: Duration,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Holds the estate while it exists.
    pub supervisor: Option<Supervisor>,
    /// Counts the supervisor's lives: one more when it starts, and when it becomes another binary.
    pub life: u8,
    pub processes: Vec<Process>,
    /// The epoch on the disk.
    pub recorded: u64,
    /// The newest epoch that was ever granted.
    pub newest: u64,
    /// Whether the links are pinned.
    pub pinned: bool,
    /// Somebody asked, durably, for everything to be removed.
    pub removal: bool,
    pub flaw: Option<Flaw>,
    pub left: Budget,
}

impl World {
    /// The loader has handed the estate over, and pinned it.
    pub fn new(left: Budget) -> Self {
        let mut world = Self {
            supervisor: None,
            life: 0,
            processes: Vec::new(),
            recorded: 0,
            newest: 0,
            pinned: true,
            removal: false,
            flaw: None,
            left,
        };
        world.start(Fence::Whole);
        world
    }

    /// How many processes write.
    pub fn writers(&self) -> usize {
        self.processes.iter().filter(|process| process.writes()).count()
    }

    /// How many write, or will without another word.
    pub fn possible_writers(&self) -> usize {
        self.processes.iter().filter(|process| process.may_write()).count()
    }

    /// Processes that exist, those of a former life of the supervisor included.
    pub fn existing(&self) -> usize {
        self.processes.len()
    }

    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    pub fn find(&mut self, pid: Pid) -> &mut Process {
        let found = self.processes.iter_mut().find(|process| process.pid == pid);
        found.expect("steps are about processes that exist")
    }

    /// Whether the supervisor that started it is gone.
    pub fn is_orphan(&self, process: &Process) -> bool {
        self.supervisor.is_none() || process.pid.life != self.life
    }

    /// Whether somebody writes, nothing is under way, and the machine knows it.
    pub fn serves(&self) -> bool {
        let Some(Supervisor { machine, .. }) = &self.supervisor else { return false };
        let is_well = |process: &Process| {
            let writes = machine.writer() == Some(process.pid.worker)
                && machine.epoch() == process.epoch
                && process.writes();
            process.run == Run::Running && (writes || self.is_ready_spare(process))
        };
        machine.writer().is_some()
            && self.processes.iter().all(is_well)
            && !machine.in_takeover()
            && !machine.awaits_takeover()
            && machine.next_start().is_none()
    }

    /// Whether `process` waits for the writer's death, and the machine knows it.
    pub fn is_ready_spare(&self, process: &Process) -> bool {
        let spare = self.supervisor.as_ref().and_then(|up| up.machine.spare());
        process.stage == Stage::Shadow
            && spare.is_some_and(|spare| {
                spare.id == process.pid.worker && matches!(spare.phase, Phase::Shadow { .. })
            })
    }

    /// Whether everything is gone, as somebody wished.
    pub fn is_removed(&self) -> bool {
        self.removal && !self.pinned && self.supervisor.is_none() && self.processes.is_empty()
    }

    /// The supervisor starts, or starts again: with nothing but the epoch on the disk and the pins.
    pub fn start(&mut self, fence: Fence) {
        // A removal that was interrupted is finished first; then everything is made anew.
        self.removal = false;
        self.pinned = true;
        let machine = State::new(OFFERS, self.recorded, SEED);
        self.supervisor = Some(Supervisor { machine, now: Duration::ZERO });
        self.feed(Event::Start, fence);
        self.feed(Event::Spare(self.left.spare), fence);
    }

    /// The supervisor becomes another binary, in the process it is: it is told the epoch and who
    /// writes. Nothing that is in a socket gets lost.
    pub fn succeed(&mut self, fence: Fence) {
        let Some(Supervisor { machine, now }) = &mut self.supervisor else { return };
        let (writer, former) = (machine.writer(), self.life);
        if writer.is_some() && machine.awaits_takeover() {
            self.flaw = Some(Flaw::Forgotten);
        }
        *machine = match writer {
            Some(_) => State::resumed(OFFERS, machine.epoch(), SEED, *now),
            None => State::new(OFFERS, machine.epoch(), SEED),
        };
        let successors = machine.writer();
        self.life += 1;
        match writer.zip(successors) {
            Some((worker, renamed)) => {
                let process = self.find(Pid { life: former, worker });
                process.pid = Pid { life: former + 1, worker: renamed };
            }
            None => self.feed(Event::Start, fence),
        }
        self.feed(Event::Spare(self.left.spare), fence);
    }

    /// The supervisor dies. The kernel will end its workers, in its own time.
    pub fn die(&mut self) {
        self.supervisor = None;
        self.life += 1;
        self.processes.retain(Process::lives);
        for orphan in &mut self.processes {
            orphan.condemned = true;
            // Nobody will read that. What was sent to it, on the other hand, it may still read.
            orphan.outbox.clear();
        }
    }

    /// Feeds the machine with `event` and what follows from it, as the keeper does.
    pub fn feed(&mut self, event: Event, fence: Fence) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(Supervisor { machine, now }) = &mut self.supervisor else { return };
            for action in machine.step(event, *now) {
                self.perform(action, fence, &mut events);
            }
        }
    }

    /// The same, but the supervisor dies between recording an epoch and sending the grant. Tells
    /// whether there was a grant at all.
    pub fn feed_and_die_granting(&mut self, event: Event) -> bool {
        let Some(Supervisor { machine, now }) = &mut self.supervisor else { return false };
        let actions = machine.step(event, *now);
        let epoch = actions.iter().find_map(|action| match action {
            Action::Grant(_, epoch) => Some(*epoch),
            _ => None,
        });
        self.recorded = epoch.unwrap_or(self.recorded);
        self.die();
        epoch.is_some()
    }

    fn perform(&mut self, action: Action, fence: Fence, events: &mut VecDeque<Event>) {
        match action {
            Action::Begin(_) | Action::Promote(..) | Action::Conclude(_) => {}
            Action::Spawn { worker, occasion, .. } => {
                let pid = Pid { life: self.life, worker };
                let spare = occasion == Occasion::Standby;
                self.processes.push(Process::ordered(pid, spare));
            }
            Action::Hello { worker, .. } => self.tell(worker, Message::Hello),
            Action::Offer(worker) => {
                (0..OFFERS).for_each(|index| self.tell(worker, Message::Offer(index)));
            }
            Action::Release(worker) => {
                self.tell(worker, Message::Release);
                if fence == Fence::ReleasedOnceAsked {
                    events.push_back(Event::Said(worker, Word::Released));
                }
            }
            Action::Grant(worker, epoch) => {
                if epoch <= self.newest {
                    self.flaw = Some(Flaw::StaleEpoch(epoch));
                }
                self.newest = epoch;
                self.recorded = epoch;
                self.tell(worker, Message::Grant(epoch));
            }
            Action::Leave(worker) => self.tell(worker, Message::Leave),
            Action::Kill(worker) => {
                // One that does not run yet is killed again when it does.
                if let Some(process) = self.known(worker) {
                    process.condemned |= process.lives();
                }
                if fence == Fence::DeadOnceKilled {
                    events.push_back(Event::Reaped(worker, "killed".to_owned()));
                }
            }
            Action::Exit(exit) => self.exit(exit),
        }
    }

    fn exit(&mut self, exit: Exit) {
        if self.processes.iter().any(|process| process.pid.life == self.life) {
            self.flaw = Some(Flaw::LeftBehind);
        }
        self.die();
        if exit == Exit::ToUninstall {
            self.pinned = false;
        }
    }

    fn tell(&mut self, worker: WorkerId, message: Message) {
        if let Some(process) = self.known(worker) {
            process.receive(message);
        }
    }

    fn known(&mut self, worker: WorkerId) -> Option<&mut Process> {
        let pid = Pid { life: self.life, worker };
        let found = self.processes.iter_mut().find(|process| process.pid == pid);
        if found.is_none() {
            self.flaw = Some(Flaw::Unknown(worker));
        }
        found
    }

    /// Whether the machine has a deadline that no heartbeat will put off.
    pub fn is_waiting(&self) -> bool {
        let Some(Supervisor { machine, .. }) = &self.supervisor else { return false };
        let put_off = |worker: &Worker| worker.deadline.is_none() || self.beat(worker.id).is_some();
        machine.next_deadline().is_some()
            && (machine.next_start().is_some() || !machine.workers().iter().all(put_off))
    }

    /// Nothing happens until a deadline has passed. While `beating`, those that are well keep
    /// sending heartbeats in the meantime.
    pub fn pass_time(&mut self, beating: bool, fence: Fence) {
        loop {
            let Some(Supervisor { machine, now }) = &mut self.supervisor else { return };
            let Some(deadline) = machine.next_deadline() else { return };
            *now = deadline.max(*now);
            let due = machine.workers().iter().filter(|worker| worker.deadline == Some(deadline));
            let due: Vec<_> = due.map(|worker| worker.id).collect();
            match due.into_iter().find_map(|worker| self.beat(worker).filter(|_| beating)) {
                Some(beat) => self.feed(beat, fence),
                None => return self.feed(Event::Tick, fence),
            }
        }
    }

    /// The heartbeat that `worker` sends if it is well, and ready or granted.
    fn beat(&self, worker: WorkerId) -> Option<Event> {
        let machine = &self.supervisor.as_ref()?.machine;
        let (epoch, progress) = match machine.phase(worker)? {
            Phase::Granted { epoch, progress } => (epoch, progress),
            Phase::Shadow { progress } => (0, progress),
            _ => return None,
        };
        let process = self.process(Pid { life: self.life, worker })?;
        // The machine only asks whether the number is another one: two are enough.
        let word = Word::Heartbeat { epoch, progress: 1 - progress.min(1) };
        process.beats(epoch).then_some(Event::Said(worker, word))
    }
}
