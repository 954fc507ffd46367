//! What crosses a boundary between Holdfast's processes, or between them and the kernel.
//!
//! In reading order:
//!
//! - [`kernel`]: the structs the kernel programs and the worker share through maps. It needs no
//!   standard library, and is all of this crate that the kernel programs see.
//! - [`manifest`]: what the estate consists of, so that a receiver can check what it was handed.
//! - [`pin`]: where the estate is pinned.
//! - [`wire`]: how one message becomes one packet, and the bounds every packet keeps.
//! - [`handover`]: the conversation between the supervisor and the children it spawns.
//! - [`control`]: the conversation between the supervisor and `holdfastctl`.
//!
//! **Architecture Invariant:** there is no behaviour here, only shapes, bounds and their checks.
//! Nothing in this crate opens, reads, writes or waits.
#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]

pub mod kernel;

#[cfg(feature = "std")]
pub mod control;
#[cfg(feature = "std")]
pub mod handover;
#[cfg(feature = "std")]
pub mod manifest;
#[cfg(feature = "std")]
pub mod pin;
#[cfg(feature = "std")]
pub mod wire;
