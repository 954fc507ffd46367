//! What is left to a worker whose parser has been taken over: the maps it was handed, its socket,
//! and the files it reads anyway.
//!
//! A worker without any privilege may still do what every process may: read what is readable to
//! all, connect to sockets, start programs, signal processes of the same user. Two filters of the
//! kernel take that away as well, for good, before the first byte of configuration is read:
//!
//! - [`files`]: Landlock. Which files, and no port to listen at, whatever the call.
//! - [`calls`]: seccomp. Which system calls, and with which arguments; the list and its reasons are
//!   in [`allowed`]. A worker whose configuration asks for no health checks tightens it once more, so
//!   that it cannot connect to anything.
//!
//! The order matters. Landlock binds the calling thread and what it starts later, so it comes while
//! there is one thread. Then the reactor is made and its helper threads are started, all there will
//! ever be, so that the second filter, which binds them all, can refuse to start any.

pub mod allowed;
pub mod calls;
pub mod files;
