//! What can happen in the world, one step at a time.

use holdfast::takeover::{Event, State, Word, WorkerId};
use stateright::{Model, Property};

use super::process::{Pid, Process, Run, Stage};
use super::world::{Budget, Fence, Flaw, World};

/// A world to explore: how much may happen, and which fence keeps the writers apart.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub budget: Budget,
    pub fence: Fence,
}

/// One step. Any order of them is explored: a message that is not delivered yet is delayed, a
/// process that is not chosen is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The process the machine ordered runs.
    Spawned(Pid),
    /// The supervisor reads the next thing it said.
    Hear(Pid),
    /// The supervisor reads the end of file.
    HearEnd(Pid),
    /// The supervisor reaps it.
    Reap(Pid),
    /// It reads the next message.
    Read(Pid),
    /// It finishes what it is at.
    Work(Pid),
    /// SIGKILL takes effect.
    End(Pid),
    /// The supervisor starts again.
    Return,
    /// Everybody waits for a deadline to pass.
    Wait,

    /// Somebody asks for a reload.
    Reload,
    /// Somebody asked for it, and the supervisor becomes the binary on disk.
    Succeed,
    /// Somebody asks for the supervisor to become another binary, which begins with this.
    DismissSpare,
    /// Somebody asks for the supervisor to leave.
    Stop,
    /// Somebody asks for everything to be removed.
    Uninstall,
    /// It sends a heartbeat.
    Beat(Pid),
    /// It is continued. It may also never be.
    Continue(Pid),

    /// It cannot be started.
    SpawnFails(Pid),
    /// It ends by itself.
    Crash(Pid),
    /// It is stopped.
    Hang(Pid),
    /// It will not serve.
    Refuse(Pid),
    /// It says something at the wrong time.
    Babble(Pid),
    /// It closes its socket and runs on.
    Close(Pid),
    /// It does not take its messages, or sends what is no message.
    Break(Pid),
    /// A deadline passes although there was something to do; the writer's heartbeats came.
    Late,
    /// The same, and the writer's heartbeats did not come.
    LateWriter,
    /// The supervisor dies.
    Die,
    /// The supervisor dies on hearing the next thing it said, with a grant recorded and not sent.
    DieHearing(Pid),
    /// The supervisor dies on reaping it, with a grant recorded and not sent.
    DieReaping(Pid),
}

impl Bounds {
    /// What happens by itself sooner or later: no faults, no requests.
    pub fn fair(&self, world: &World, steps: &mut Vec<Step>) {
        for process in &world.processes {
            fair_of(world, process, steps);
        }
        if world.supervisor.is_none() && !world.is_removed() && self.may_return(world) {
            steps.push(Step::Return);
        }
        if steps.is_empty() && world.is_waiting() {
            steps.push(Step::Wait);
        }
    }

    /// Workers hold their supervisor's lock as well, so the next one gets it when they are gone.
    fn may_return(&self, world: &World) -> bool {
        self.fence == Fence::OrphansIgnored || world.processes.is_empty()
    }

    fn apply(&self, world: &mut World, step: Step) -> Option<()> {
        let fence = self.fence;
        match step {
            Step::Spawned(pid) => {
                world.find(pid).run = Run::Running;
                world.feed(Event::Spawned(pid.worker), fence);
            }
            Step::Hear(pid) => {
                let word = world.find(pid).outbox.remove(0);
                world.feed(Event::Said(pid.worker, word), fence);
            }
            Step::HearEnd(pid) => {
                world.find(pid).closed_heard = true;
                world.feed(Event::Closed(pid.worker), fence);
            }
            Step::Reap(pid) => {
                let reaped = reap(world, pid, fence);
                world.feed(reaped, fence);
            }
            Step::Read(pid) => {
                if let Err(misunderstood) = world.find(pid).read() {
                    world.flaw = Some(Flaw::Nonsense(misunderstood));
                }
                bury(world, pid);
            }
            Step::Work(pid) => {
                world.find(pid).work();
                bury(world, pid);
            }
            Step::End(pid) => {
                world.find(pid).end();
                bury(world, pid);
            }
            Step::Return => world.start(fence),
            Step::Wait => world.pass_time(true, fence),
            step => self.apply_request(world, step)?,
        }
        Some(())
    }

    fn apply_request(&self, world: &mut World, step: Step) -> Option<()> {
        let fence = self.fence;
        match step {
            Step::Reload => {
                world.left.reloads -= 1;
                world.feed(Event::Reload, fence);
            }
            Step::Succeed => {
                world.left.successions -= 1;
                world.succeed(fence);
            }
            Step::DismissSpare => world.feed(Event::Spare(false), fence),
            Step::Stop => {
                world.left.departures -= 1;
                world.feed(Event::Stop, fence);
            }
            Step::Uninstall => {
                world.left.departures -= 1;
                world.removal = true;
                world.feed(Event::Uninstall, fence);
            }
            Step::Beat(pid) => {
                world.left.heartbeats -= 1;
                let process = world.find(pid);
                let epoch = if process.writes() { process.epoch } else { 0 };
                process.say(Word::Heartbeat { epoch, progress: 2 });
            }
            Step::Continue(pid) => world.find(pid).run = Run::Running,
            Step::Die => {
                world.left.deaths -= 1;
                world.die();
            }
            Step::DieHearing(pid) => {
                world.left.deaths -= 1;
                let word = world.find(pid).outbox.remove(0);
                return world.feed_and_die_granting(Event::Said(pid.worker, word)).then_some(());
            }
            Step::DieReaping(pid) => {
                world.left.deaths -= 1;
                let reaped = reap(world, pid, fence);
                return world.feed_and_die_granting(reaped).then_some(());
            }
            step => {
                world.left.faults -= 1;
                self.apply_fault(world, step);
            }
        }
        Some(())
    }

    fn apply_fault(&self, world: &mut World, step: Step) {
        let fence = self.fence;
        match step {
            Step::SpawnFails(pid) => {
                world.processes.retain(|process| process.pid != pid);
                world.feed(Event::SpawnFailed(pid.worker, "no such file".to_owned()), fence);
            }
            Step::Crash(pid) => {
                world.find(pid).end();
                bury(world, pid);
            }
            Step::Hang(pid) => world.find(pid).run = Run::Stopped,
            Step::Refuse(pid) => world.find(pid).refuse(),
            Step::Babble(pid) => world.find(pid).say(Word::Granted(u64::MAX)),
            Step::Close(pid) => world.find(pid).close(),
            Step::Break(pid) => world.feed(Event::Fault(pid.worker, "broken".to_owned()), fence),
            Step::Late => world.pass_time(true, fence),
            Step::LateWriter => world.pass_time(false, fence),
            step => unreachable!("{step:?} is no fault"),
        }
    }
}

fn fair_of(world: &World, process: &Process, steps: &mut Vec<Step>) {
    let pid = process.pid;
    let heard = !world.is_orphan(process);
    if heard && process.run == Run::Ordered {
        steps.push(Step::Spawned(pid));
    }
    if heard && !process.outbox.is_empty() {
        steps.push(Step::Hear(pid));
    }
    let ended = process.run == Run::Dead || process.closed;
    if heard && process.outbox.is_empty() && ended && !process.closed_heard {
        steps.push(Step::HearEnd(pid));
    }
    if heard && process.run == Run::Dead {
        steps.push(Step::Reap(pid));
    }
    if process.can_read() {
        steps.push(Step::Read(pid));
    }
    if process.has_work() {
        steps.push(Step::Work(pid));
    }
    if process.lives() && process.condemned {
        steps.push(Step::End(pid));
    }
}

/// What people ask for, and what chance brings.
fn requests(world: &World, fence: Fence, steps: &mut Vec<Step>) {
    let machine = world.supervisor.as_ref().map(|supervisor| &supervisor.machine);
    let stays = |machine: &&State| machine.leaving().is_none();
    if world.left.reloads > 0 && machine.is_some_and(|machine| stays(&machine)) {
        steps.push(Step::Reload);
    }
    // A spare is not carried over: it is ended first.
    if world.left.successions > 0 && machine.is_some_and(|machine| machine.spare().is_some()) {
        steps.push(Step::DismissSpare);
    }
    let may_succeed = |machine: &State| {
        machine.is_quiet() || fence == Fence::UnquietSuccession && stays(&machine)
    };
    if world.left.successions > 0 && machine.is_some_and(may_succeed) {
        steps.push(Step::Succeed);
    }
    if world.left.departures > 0 && world.supervisor.is_some() {
        steps.extend([Step::Stop, Step::Uninstall]);
    }
    for process in &world.processes {
        if process.run == Run::Stopped {
            steps.push(Step::Continue(process.pid));
        }
        let speaks = process.run == Run::Running && !process.closed && !world.is_orphan(process);
        if world.left.heartbeats > 0 && speaks && process.stage != Stage::Greeting {
            steps.push(Step::Beat(process.pid));
        }
    }
}

fn faults(world: &World, steps: &mut Vec<Step>) {
    for process in &world.processes {
        faults_of(world, process, steps);
    }
    let deadline = world.supervisor.as_ref().and_then(|up| up.machine.next_deadline());
    if deadline.is_some() {
        steps.push(Step::LateWriter);
        if world.is_waiting() {
            steps.push(Step::Late);
        }
    }
}

fn faults_of(world: &World, process: &Process, steps: &mut Vec<Step>) {
    let pid = process.pid;
    let heard = !world.is_orphan(process);
    if heard && process.run == Run::Ordered {
        steps.push(Step::SpawnFails(pid));
    }
    if heard && process.run != Run::Ordered {
        steps.push(Step::Break(pid));
    }
    if process.run == Run::Running {
        // One that is being killed needs no other reason to end.
        if !process.condemned {
            steps.push(Step::Crash(pid));
        }
        steps.push(Step::Hang(pid));
        if heard && !process.closed {
            steps.extend([Step::Babble(pid), Step::Close(pid)]);
            if !process.may_write() && process.stage != Stage::Refusing {
                steps.push(Step::Refuse(pid));
            }
        }
    }
}

fn deaths(world: &World, steps: &mut Vec<Step>) {
    if world.supervisor.is_none() {
        return;
    }
    steps.push(Step::Die);
    for process in world.processes.iter().filter(|process| !world.is_orphan(process)) {
        if !process.outbox.is_empty() {
            steps.push(Step::DieHearing(process.pid));
        }
        if process.run == Run::Dead {
            steps.push(Step::DieReaping(process.pid));
        }
    }
}

/// The process is gone; what the machine hears of that. Of its last words only a refusal counts.
fn reap(world: &mut World, pid: Pid, fence: Fence) -> Event {
    for word in std::mem::take(&mut world.find(pid).outbox) {
        if matches!(word, Word::Refused(_)) {
            world.feed(Event::Said(pid.worker, word), fence);
        }
    }
    world.processes.retain(|process| process.pid != pid);
    Event::Reaped(pid.worker, "it ended".to_owned())
}

/// Whatever took in the orphans reaps them; so it is with one the machine believes gone already.
fn bury(world: &mut World, pid: Pid) {
    let known = |worker: WorkerId| {
        world.supervisor.as_ref().is_some_and(|up| up.machine.phase(worker).is_some())
    };
    let unheard = |process: &Process| world.is_orphan(process) || !known(process.pid.worker);
    let dead = |process: &&Process| process.run == Run::Dead && unheard(process);
    if world.process(pid).as_ref().is_some_and(dead) {
        world.processes.retain(|process| process.pid != pid);
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.fair(world, steps);
        requests(world, self.fence, steps);
        if world.left.faults > 0 {
            faults(world, steps);
        }
        if world.left.deaths > 0 {
            deaths(world, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        self.apply(&mut world, step).map(|()| world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::rules::all()
    }
}
