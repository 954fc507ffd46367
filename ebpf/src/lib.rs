//! What the kernel programs decide, apart from the kernel: pure functions that build and are tested
//! on any machine.
//!
//! In reading order:
//!
//! - [`decide`](mod@decide): from the address a client asks for to the endpoint it gets, while the
//!   tables may be replaced at any instant.
//! - [`choose`]: which endpoint of a table, given random words.
//! - [`client`]: who a client is, for what depends on that.
//! - [`affinity`]: which endpoint a client stays with.
//! - [`words`]: the shared structs as the 64-bit words the programs read them by.
//! - [`socket`]: which sockets are governed, and which peer a client is told.
//!
//! The programs themselves (`main.rs`, `maps.rs`, `sock_addr.rs`) are compiled for the BPF target
//! only; they fetch and store, and decide nothing.
//!
//! **Architecture Invariant:** nothing here calls the kernel or holds a pointer.
#![no_std]
#![forbid(unsafe_code)]

pub mod affinity;
pub mod choose;
pub mod client;
pub mod decide;
pub mod socket;
pub mod words;

#[cfg(test)]
extern crate std;
