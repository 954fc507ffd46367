//! Where the access log goes: standard output, which the supervisor has opened.
//!
//! Nothing here waits. A reader that does not read leaves the lines here, the events they are of in the
//! kernel, and those that find no room there counted as lost; no connection waits for a line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What is written at once. A pipe that has room at all has room for this much (`PIPE_BUF`), and takes it
/// without waiting.
const CHUNK_BYTES: usize = 4096;

/// The lines that are not written yet.
#[derive(Debug, Default)]
pub struct Sink {
    waiting: VecDeque<u8>,
}

impl Sink {
    /// Adds whole lines.
    pub fn push(&mut self, lines: &str) {
        self.waiting.extend(lines.as_bytes());
    }

    /// Writes what can be written without waiting. Returns whether nothing is left.
    ///
    /// # Errors
    ///
    /// When the lines cannot be written at all.
    pub fn flush(&mut self) -> io::Result<bool> {
        let output = io::stdout();
        self.flush_to(output.as_fd())
    }

    /// Drops what is not written.
    pub fn clear(&mut self) {
        self.waiting = VecDeque::new();
    }

    fn flush_to(&mut self, output: BorrowedFd<'_>) -> io::Result<bool> {
        while !self.waiting.is_empty() {
            if !has_room(output)? {
                return Ok(false);
            }
            let chunk = &self.waiting.make_contiguous()[..];
            let chunk = &chunk[..chunk.len().min(CHUNK_BYTES)];
            match Descriptor(output).write(chunk) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn has_room(output: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(output, PollFlags::POLLOUT)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes without a buffer of its own: what a killed worker had not passed on would be gone.
struct Descriptor<'a>(BorrowedFd<'a>);

impl Write for Descriptor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut sink = Sink::default();
        let line = "x".repeat(99) + "\n";
        sink.push(&line.repeat(10_000));
        assert!(!sink.flush_to(writer.as_fd()).expect("a pipe takes what it has room for"));
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        while !sink.flush_to(writer.as_fd()).expect("it is read") {
            std::thread::yield_now();
        }
        drop(writer);
        let read = reading.join().expect("no panic").expect("a pipe can be read");
        assert!(read == line.repeat(10_000).as_bytes(), "{} bytes", read.len());
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut sink = Sink::default();
        sink.push("line\n");
        assert!(sink.flush_to(writer.as_fd()).is_err());
    }
}
