//! As much of HTTP/1.1 (RFC 9112) as answering a scrape takes: one request on a connection, `GET` or
//! `HEAD`, without a body, and one answer, after which it is closed.
//!
//! - [`request`]: what was asked. Pure; a fuzzer calls it.
//! - [`answer`]: what is said. Pure.
//! - [`connection`]: the sockets, without a system call that serving does not need anyway.
//!
//! A connection is for one answer because a worker is for some time only: what a client keeps open to one
//! that is replaced would fail it at its next request.

pub mod answer;
pub mod connection;
pub mod request;
