//! What the kernel programs decide, apart from the kernel: pure functions that build and are tested
//! on any machine.
//!
//! In reading order:
//!
//! - [`decide`](mod@decide): from the address a client asks for to the endpoint it gets, while the
//!   tables may be replaced at any instant.
//! - [`policy`]: whether access policies let it pass.
//! - [`precedent`]: what they have said of the same before.
//! - [`arrival`]: what a packet that arrives is part of, for the same.
//! - [`choose`]: which endpoint of a table, given random words.
//! - [`direct`]: the endpoint that is asked for by its own address.
//! - [`cache`]: where an address leads, as a lookup before this one has found it.
//! - [`plain`]: the straight way through all that, which nearly every connection goes.
//! - [`client`]: who a client is, for what depends on that.
//! - [`enrol`]: which sockets are governed at all.
//! - [`flow`]: the same for datagrams of sockets that are not connected, and what is remembered of
//!   them.
//! - [`affinity`], [`recent`]: which endpoint a client stays with, and was last found to.
//! - [`versioned`]: elements of several words that programs write while others read them.
//! - [`lifecycle`]: what happens to a connection after `connect(2)`, and what is counted for it.
//! - [`event`]: which events are told of it.
//! - [`drain`]: what is closed because its endpoint has drained long enough.
//! - [`limit`], [`rate`]: bounds on what is open and pending, and on what begins in a second.
//! - [`words`]: the shared structs as the 64-bit words the programs read them by.
//! - [`socket`]: which sockets are governed, and which peer a client is told.
//! - `race`: for tests of all that, maps that a writer changes between any two reads.
//!
//! The programs themselves (`main.rs`, `maps.rs`, `sock_addr.rs`, `counting.rs`) are compiled for the BPF target
//! only; they fetch and store, and decide nothing.
//!
//! **Architecture Invariant:** nothing here calls the kernel or holds a pointer.
#![no_std]
#![forbid(unsafe_code)]

pub mod affinity;
pub mod arrival;
pub mod cache;
pub mod choose;
pub mod client;
pub mod decide;
mod direct;
pub mod drain;
pub mod enrol;
pub mod event;
pub mod flow;
pub mod lifecycle;
pub mod limit;
pub mod plain;
pub mod policy;
pub mod precedent;
#[cfg(test)]
mod race;
pub mod rate;
pub mod recent;
pub mod socket;
mod table;
pub mod versioned;
pub mod words;

#[cfg(test)]
extern crate std;
