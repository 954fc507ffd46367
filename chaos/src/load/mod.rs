//! What goes on while faults are injected.
//!
//! - [`site`]: the services, their backends and virtual addresses.
//! - [`ledger`]: which endpoint was in the configuration when (pure).
//! - [`configuration`]: the file, who may save it, and what is known of each save.
//! - [`churn`]: endpoints come and go.
//! - [`clients`]: new connections, each counted with how it went.

pub mod churn;
pub mod clients;
pub mod configuration;
pub mod ledger;
pub mod site;
