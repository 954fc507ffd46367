//! A worker's process: what the program in it has understood, and what the kernel has in store for
//! it.

use holdfast::takeover::{Word, WorkerId};
use holdfast_protocol::wire;

/// In how many packets the estate is offered: two, so that one can be accepted and one not.
pub const OFFERS: u16 = 2;

/// A process. Unlike a [`WorkerId`] it is told apart from those of the supervisor's other lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid {
    /// Which of the supervisor's lives started it, or took it over.
    pub life: u8,
    /// How that supervisor calls it.
    pub worker: WorkerId,
}

/// What the supervisor says to a worker, as far as the takeover is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    Hello,
    Offer(u16),
    Release,
    Grant(u64),
    Leave,
}

/// How the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// Not started yet.
    Ordered,
    /// Runs, however slowly.
    Running,
    /// Stopped. It has ended nothing: once continued, it goes on where it was.
    Stopped,
    /// Dead, and not reaped.
    Dead,
}

/// How far the program has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    Greeting,
    /// It has accepted this many offers.
    Gathering(u16),
    Preparing,
    Shadow,
    /// It writes, and has not said yet that it does.
    Applying(u64),
    Granted(u64),
    /// It has read `Release`, and still writes what it had begun.
    Finishing,
    /// It has said why it will not serve; it ends next.
    Refusing,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: Pid,
    /// It was started as a spare.
    pub was_spare: bool,
    pub run: Run,
    pub stage: Stage,
    /// The newest epoch it was granted.
    pub epoch: u64,
    /// SIGKILL is on its way: from the supervisor, or from the kernel because that is gone.
    pub condemned: bool,
    /// It has closed its end of the socket.
    pub closed: bool,
    /// The supervisor has read the end of file.
    pub closed_heard: bool,
    /// What it has not read yet.
    pub inbox: Vec<Message>,
    /// What it said and the supervisor has not read yet.
    pub outbox: Vec<Word>,
}

/// The program cannot make sense of what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutOfTurn {
    pub message: Message,
    pub stage: Stage,
}

impl Process {
    pub fn ordered(pid: Pid, was_spare: bool) -> Self {
        Self {
            pid,
            was_spare,
            run: Run::Ordered,
            stage: Stage::Greeting,
            epoch: 0,
            condemned: false,
            closed: false,
            closed_heard: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Whether there is a process that could still do something, now or once it is continued.
    pub fn lives(&self) -> bool {
        matches!(self.run, Run::Running | Run::Stopped)
    }

    /// Whether it has read a grant and not given it back, stopped or not.
    pub fn writes(&self) -> bool {
        let granted = matches!(self.stage, Stage::Applying(_) | Stage::Granted(_));
        self.lives() && (granted || self.stage == Stage::Finishing)
    }

    /// Whether it writes, or will as soon as it reads what is in its socket already.
    pub fn may_write(&self) -> bool {
        let granted = self.inbox.iter().any(|message| matches!(message, Message::Grant(_)));
        self.writes() || (self.lives() && granted)
    }

    /// Whether it would send a heartbeat in time, of this epoch or, with 0, of none.
    pub fn beats(&self, epoch: u64) -> bool {
        self.run == Run::Running
            && !self.closed
            && !self.condemned
            && self.stage == if epoch == 0 { Stage::Shadow } else { Stage::Granted(epoch) }
            && self.outbox.is_empty()
    }

    /// Whether there is something for it to do without reading.
    pub fn has_work(&self) -> bool {
        self.run == Run::Running
            && matches!(
                self.stage,
                Stage::Preparing | Stage::Applying(_) | Stage::Finishing | Stage::Refusing
            )
    }

    pub fn can_read(&self) -> bool {
        // One that refuses is about to end, and reads nothing any more.
        self.run == Run::Running && !self.inbox.is_empty() && self.stage != Stage::Refusing
    }

    /// Something arrives in its socket, if that is still open.
    pub fn receive(&mut self, message: Message) {
        if self.lives() && !self.closed {
            self.inbox.push(message);
        }
    }

    /// It reads the next message. It is as strict as the worker's own conversation.
    pub fn read(&mut self) -> Result<(), OutOfTurn> {
        let message = self.inbox.remove(0);
        self.stage = match (message, self.stage) {
            (Message::Leave, stage) => {
                self.end();
                stage
            }
            (Message::Hello, Stage::Greeting) => {
                self.say(Word::Welcome { newest: wire::VERSION, oldest: wire::OLDEST_VERSION });
                Stage::Gathering(0)
            }
            (Message::Offer(index), Stage::Gathering(accepted)) if index == accepted => {
                self.say(Word::Accepted(index));
                if index + 1 == OFFERS { Stage::Preparing } else { Stage::Gathering(index + 1) }
            }
            (Message::Grant(epoch), Stage::Shadow) if epoch > self.epoch => {
                self.epoch = epoch;
                Stage::Applying(epoch)
            }
            (Message::Release, Stage::Granted(_)) => Stage::Finishing,
            (message, stage) => return Err(OutOfTurn { message, stage }),
        };
        Ok(())
    }

    /// It finishes what it is at.
    pub fn work(&mut self) {
        self.stage = match self.stage {
            Stage::Preparing => {
                self.say(Word::Ready);
                Stage::Shadow
            }
            Stage::Applying(epoch) => {
                self.say(Word::Granted(epoch));
                Stage::Granted(epoch)
            }
            // It has written its last before it says so.
            Stage::Finishing => {
                self.say(Word::Released);
                Stage::Shadow
            }
            Stage::Refusing => {
                self.end();
                Stage::Refusing
            }
            stage => stage,
        };
    }

    pub fn say(&mut self, word: Word) {
        if !self.closed {
            self.outbox.push(word);
        }
    }

    pub fn refuse(&mut self) {
        self.say(Word::Refused("refused".to_owned()));
        self.stage = Stage::Refusing;
    }

    /// It dies. What it said can still be read; what it was told is lost.
    pub fn end(&mut self) {
        self.run = Run::Dead;
        self.inbox.clear();
    }

    /// It closes its end of the socket, and runs on.
    pub fn close(&mut self) {
        self.closed = true;
        self.inbox.clear();
    }
}
