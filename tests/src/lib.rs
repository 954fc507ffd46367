//! End-to-end tests: the real binaries on the real kernel, in `tests/e2e` and `tests/museum`.
//!
//! They use the release binaries (`make build`), need root, and fail without either. Each runs in a
//! patch of the machine of its own, so they run in parallel and leave nothing. What both need is
//! here:
//!
//! - [`scene`]: what most tests start from.
//! - [`life`]: one instance through restarts of every size.
//! - [`alone`]: a supervisor whose memory is its own, to be measured.
//! - [`builds`]: other builds of the worker, and how they get on the disk.
//! - [`hooks`], [`programmed`]: what the kernel says, read without any of Holdfast's processes.
//! - [`rows`]: what `holdfastctl` lists. [`scrape`]: what a scraper gets.
//! - [`health_server`]: a server that says how an endpoint is.
//! - [`watch`]: looking at something all the while.

pub mod alone;
pub mod builds;
pub mod health_server;
pub mod hooks;
pub mod life;
pub mod programmed;
pub mod rows;
pub mod scene;
pub mod scrape;
pub mod watch;
