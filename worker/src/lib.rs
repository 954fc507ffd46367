//! `holdfast-worker`: the three kinds of child the supervisor spawns.
//!
//! - [`load`]: the loader. Privileged, lives for milliseconds, parses nothing but Holdfast's own
//!   kernel object. Builds, adopts, repairs or clears the estate.
//! - [`serve`]: the worker. Drops every privilege before it reads a byte of configuration, then
//!   reads and compiles the configuration and writes the maps it was handed.
//! - [`close`]: the closer. Privileged, lives for milliseconds, parses nothing but the maps and the kernel's
//!   answers. Closes connections whose endpoint has drained long enough.
//! - [`lifeline`]: the child's end of the socket to the supervisor, which all use.
//!
//! It is a library as well as a program so that integration tests reach the parts that write the
//! kernel's maps.
//!
//! **Architecture Invariant:** they share no state and no process: what is privileged never
//! reads configuration, what reads configuration is never privileged.

pub mod close;
pub mod lifeline;
pub mod load;
pub mod serve;
