//! Clients and servers that people use, unchanged, through a virtual address, while the worker is
//! killed every 200 ms. Each client's own report is judged, and the kernel's count of connections.
//!
//! - [`web`]: nginx and wrk. [`redis`]: redis-server and redis-benchmark.
//! - [`postgresql`]: PostgreSQL and pgbench. [`dns`]: dnsmasq and dig, over UDP.
//! - [`storm`]: the supervisor and the kills. [`program`]: what is started, as guards.
//!
//! Servers run outside the governed cgroup, clients in it; both are in the network namespace of the
//! test. Before anything is governed, each test sees that its client, and the judge of its report,
//! notice a virtual address that leads nowhere.

mod dns;
mod postgresql;
mod program;
mod redis;
mod storm;
mod web;
