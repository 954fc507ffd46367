//! The supervisor: holds the estate, starts and replaces the workers, and nothing else.
//!
//! In reading order:
//!
//! - [`command`]: the command line. [`run`] and [`uninstall`] are what it can do.
//! - [`preflight`], [`mounts`], [`proc_status`]: what has to be there before anything is touched;
//!   [`capabilities`]: what is given up before anything is read.
//! - [`access`]: who may ask what over the control socket. [`scrapes`]: where metrics are asked for.
//! - [`instance`], [`lock`], [`record`], [`settings`]: where an instance keeps what.
//! - [`channel`], [`process`], [`reactor`]: messages with descriptors, and children. [`watches`]: what
//!   those notice changes with.
//! - [`oom`]: who goes when memory runs out.
//! - [`loader`], [`estate`]: how the kernel objects get here, and what is said about them.
//! - [`closer`]: closing connections whose endpoint has drained long enough.
//! - [`drift`]: whether the kernel still is as they were built, and repairing it.
//! - [`takeover`]: from one worker to the next, decided purely.
//! - [`probation`], [`snapshot`]: what is new proves itself, or the former is put back.
//! - [`succession`]: from this binary to the next, in one process.
//! - [`actors`]: the shell around it. [`timeline`] and [`status`] say how it went.
//! - [`log`], [`failure`]: what people see. [`memory`]: what is kept between takeovers.
//!
//! **Architecture Invariant:** there is no loading of kernel programs here, no configuration
//! language, no HTTP, and one thread. Everything that changes often is in the worker, so that this
//! process has no reason to be restarted.
//!
//! **Architecture Invariant:** nothing here detaches a link or removes a pin of the estate; only the
//! loader can, and an estate's last link only after an intent to uninstall is on the disk.
#![deny(unsafe_code)]

pub mod access;
pub mod access_log;
pub mod actors;
pub mod capabilities;
pub mod channel;
pub mod closer;
pub mod command;
pub mod drift;
pub mod estate;
pub mod failure;
pub mod instance;
pub mod loader;
pub mod lock;
pub mod log;
pub mod memory;
pub mod mounts;
pub mod oom;
pub mod preflight;
pub mod probation;
pub mod proc_status;
pub mod process;
pub mod reactor;
pub mod record;
pub mod run;
pub mod scrapes;
pub mod settings;
pub mod snapshot;
pub mod status;
pub mod succession;
pub mod takeover;
pub mod timeline;
pub mod uninstall;
pub mod watches;
