//! What the kernel programs tell of connections: the access log, and whoever follows them live.
//!
//! - [`line`]: an event as a line, in JSON or as text. Pure.
//! - [`sink`]: where the access log goes.
//! - [`follow`]: from the ring buffer to both.
//!
//! Events wait in the kernel while no worker reads them. They are given up only when every line they
//! make has been written: a worker that is killed in between leaves them to the next one, which
//! writes them again. So a line may come twice, and none is missing that
//! [`lost`](holdfast_protocol::kernel::event::EventControl::lost) does not count.

pub mod follow;
pub mod line;
pub mod sink;

pub use follow::Events;
