//! Active health checks: endpoints are asked whether they work, and those that do not get no new
//! connections.
//!
//! - [`target`]: what is checked, and what can be found.
//! - [`checker`]: when which check is made, and what follows from its outcome. Pure: `step(event, now)`
//!   gives actions; the actor around it is `actors/checks.rs`.
//! - [`checked`]: the services of a configuration that ask for it.
//! - [`health`]: what is known of their endpoints, and the tables that follow from it. Pure.
//! - [`recall`]: the same, read back from what a former worker has programmed. Pure.
//! - [`probe`]: one check, over the network. [`answer`]: what an HTTP server says. Pure.
//!
//! **Architecture Invariant:** only a worker that is granted checks: a spare does not double the traffic.
//!
//! **Architecture Invariant:** health is stored nowhere but in the tables. An endpoint that should be in
//! one and is not was unhealthy, and is until checks have passed: a worker that dies reinstates nobody.

pub mod answer;
pub mod checked;
pub mod checker;
pub mod health;
pub mod probe;
pub mod recall;
pub mod target;

#[cfg(test)]
mod checker_tests;
#[cfg(test)]
mod health_tests;
