//! A process that gets the id of one that has gone.

use std::io;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::process::{self, Process};

/// A process that does nothing but live, killed when dropped.
#[derive(Debug)]
pub struct Stranger(Process);

impl Stranger {
    /// Starts one with the process id `pid`, which must be free.
    ///
    /// # Errors
    ///
    /// `EEXIST` when it is not, or what `clone3(2)` refuses.
    pub fn with_id(pid: u32) -> io::Result<Self> {
        let wanted = [pid.cast_signed()];
        // SAFETY: all of it is integers, for which zeros are valid and mean "not wanted".
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        arguments.set_tid = wanted.as_ptr() as u64;
        arguments.set_tid_size = 1;
        let size = size_of_val(&arguments);
        // SAFETY: the arguments and the id outlive the call. Without CLONE_VM the child is a copy, and
        // it calls only what may be called between fork and exec.
        let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
        match answer {
            0 => live(),
            1.. => Ok(Self(Process::open(pid)?)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        process::is_alive(self.0.pid())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let killed = self.0.signal(Signal::SIGKILL).and_then(|()| self.0.wait(Duration::MAX));
        if killed.is_ok() {
            let pid = nix::unistd::Pid::from_raw(self.0.pid().cast_signed());
            let _reaped = nix::sys::wait::waitpid(pid, None);
        }
    }
}

/// The child: it dies with its parent, and waits for that.
fn live() -> ! {
    // SAFETY: these take integers only, and never return to what is the parent's.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
            loop {
                libc::pause();
            }
        }
        libc::_exit(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_the_id_of_a_process_that_has_gone() {
        let mut gone = std::process::Command::new("true").spawn().expect("true is on every Debian");
        let pid = gone.id();
        assert!(Stranger::with_id(pid).is_err(), "the id is taken");
        gone.wait().expect("it is our child");
        let stranger = Stranger::with_id(pid).expect("the id is free, and this test is root");
        assert!(stranger.is_alive());
        drop(stranger);
        assert!(!process::is_alive(pid));
    }
}
