//! Reading what the supervisor says while it says it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;

/// What the supervisor logs when a worker has confirmed its grant.
const GRANTED: &str = "a worker is granted";

/// The supervisor's log, as it comes out of a pipe.
#[derive(Debug)]
pub struct Log {
    lines: BufReader<File>,
}

/// A worker was granted.
#[derive(Debug)]
pub struct Grant {
    /// Its process.
    pub pid: u32,
    /// What the takeover was about.
    pub reason: String,
    /// When the line was read.
    pub read_at: Instant,
}

#[derive(Deserialize)]
struct Line {
    message: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    reason: String,
}

impl Log {
    /// A log, and the end to write it to.
    pub fn pipe() -> anyhow::Result<(Self, File)> {
        let (reader, writer) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
        Ok((Self { lines: BufReader::new(reader.into()) }, writer.into()))
    }

    /// Waits for the next worker that is granted.
    pub fn granted(&mut self, patience: Duration) -> anyhow::Result<Grant> {
        let deadline = Instant::now() + patience;
        let mut line = String::new();
        loop {
            self.wait(deadline)?;
            line.clear();
            let length = self.lines.read_line(&mut line).context("cannot read the log")?;
            let read_at = Instant::now();
            ensure!(length > 0, "the supervisor has ended");
            if let Ok(Line { message, pid, reason }) = serde_json::from_str(&line)
                && message == GRANTED
            {
                return Ok(Grant { pid, reason, read_at });
            }
        }
    }

    fn wait(&self, deadline: Instant) -> anyhow::Result<()> {
        if !self.lines.buffer().is_empty() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.lines.get_ref().as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout).context("cannot wait for the log")? {
            0 => bail!("no worker was granted in time"),
            _ => Ok(()),
        }
    }
}
