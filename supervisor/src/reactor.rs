//! Registering descriptors with the reactor.
#![expect(unsafe_code, reason = "AsyncFd cannot know that a type keeps its descriptor")]

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::signalfd::SignalFd;
use tokio::io::unix::AsyncFd;
use uds::nonblocking::UnixSeqpacketListener;

use crate::channel::Channel;

/// Types that own the descriptor they show, non-blocking, and keep it as long as they live.
pub trait Steadfast: AsRawFd + sealed::Known {}

impl Steadfast for Channel {}
impl Steadfast for SignalFd {}
impl Steadfast for UnixSeqpacketListener {}

mod sealed {
    pub trait Known {}
    impl Known for super::Channel {}
    impl Known for super::SignalFd {}
    impl Known for super::UnixSeqpacketListener {}
}

/// Lets the reactor watch `inner`.
///
/// # Errors
///
/// When the kernel can watch no more descriptors.
pub fn watch<T: Steadfast>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the sealed types own their one descriptor, never replace it, and close it when they
    // are dropped, which `AsyncFd` does after deregistering.
    Ok(unsafe { AsyncFd::register(inner)? })
}
