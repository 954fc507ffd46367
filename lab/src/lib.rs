//! A private patch of the machine to try Holdfast on: cgroup, bpffs, state, real backends and clients.
//!
//! Whoever uses it gets a process of its own inside a cgroup, a mount namespace and a network
//! namespace of its own. Ports never collide, no packet leaves, and whatever happens inside (an
//! abort, a `SIGKILL`, a hang) the process outside removes all of it.
//!
//! In reading order:
//!
//! - [`test`]: [`isolated`], which every end-to-end test is wrapped in.
//! - [`patch`]: the outside: makes the patch, runs a process in it, always cleans up.
//! - [`program`]: a program that runs itself again in a patch.
//! - [`inside`]: the inside: [`Lab`], the directories and commands of one patch.
//! - [`supervisor`]: `holdfast run` as a guard that stops it when dropped.
//! - [`control`]: asking a supervisor, over its socket and through `holdfastctl`.
//! - [`configuration`]: services as values, and their YAML.
//! - [`backend`]: servers that say who they are.
//! - [`load`], [`stream`]: clients that count every connection and check every byte.
//! - [`handover`]: the messages between processes, and what can go wrong with each.
//! - [`census`]: what an instance has in the kernel and on disk.
//! - [`pass`]: kernel programs that let everything pass.
//! - [`stranger`]: a process that gets the id of one that has gone.
//! - [`memory`]: a memory cgroup of its own.
//! - [`machine`], [`page`]: where something was measured, and how pages about it look.
//! - [`process`], [`cgroup`], [`binaries`], [`random`], [`wait`]: what the above stand on.
//!
//! **Architecture Invariant:** nothing is sent to an address outside the patch's own network
//! namespace, and no process is signalled but those found to be the patch's own.

pub mod backend;
pub mod binaries;
pub mod census;
pub mod cgroup;
pub mod configuration;
pub mod control;
pub mod error;
pub mod handover;
pub mod inside;
pub mod load;
pub mod machine;
pub mod memory;
pub mod page;
pub mod pass;
pub mod patch;
pub mod process;
pub mod program;
pub mod random;
pub mod stranger;
pub mod stream;
pub mod supervisor;
pub mod test;
pub mod wait;

pub use backend::Backend;
pub use census::Census;
pub use configuration::{Service, render};
pub use error::LabError;
pub use inside::Lab;
pub use load::{Attempt, Load, Target, attempt};
pub use stranger::Stranger;
pub use stream::Stream;
pub use supervisor::Supervisor;
pub use test::{TestResult, isolated};
pub use wait::eventually;
