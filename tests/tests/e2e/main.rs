//! End-to-end tests: the real binaries on the real kernel, each test in a lab of its own.
//!
//! - `scene`: what most tests start from, of the library beside this.
//! - [`traffic`], [`spread`], [`datagrams`]: connections and flows are governed, and spread as configured.
//! - [`balancing`], [`affinity`], [`locality`]: every way of choosing an endpoint, over all families and worker kills.
//! - [`counts`], [`seats`]: what becomes of a connection is counted, and nothing else, wherever it is remembered.
//! - [`direct`]: endpoints that are asked for themselves.
//! - [`limits`]: no more is open than is allowed, and it is spread by what is.
//! - [`configuration`], [`rejected`]: what is saved is in force, or changes nothing.
//! - [`enrolment`]: who is governed at all.
//! - [`health_checks`], [`outliers`]: endpoints that do not work, or fail, get no new connections.
//! - [`drained`]: connections of endpoints that have drained long enough are closed.
//! - [`faults`], [`ends`], [`out_of_memory`], [`pace`]: workers die or fail to begin, and no connection
//!   notices.
//! - [`standby`]: a spare takes over from one that dies.
//! - [`lifecycle`], [`init`]: the supervisor comes and goes, and governance stays.
//! - [`losses`]: what a node can lose beside processes.
//! - [`snapshot`], [`quarantine`]: what is new proves itself, or what was before comes back.
//! - [`startup`]: what is refused before anything is touched.
//! - [`removal`], [`interrupted`]: what goes away, and only when it is asked to; [`steps`] kills at each.
//! - [`policy`], [`inbound`]: what access policies deny; [`attached`]: what judges arrivals is there when it is needed.
//! - [`privilege`], [`capabilities`], [`control_group`]: who may do what. [`footprint`], [`scale`]: limits. [`rest`]: what
//!   is done while nothing happens.
//! - [`instructions`]: what the kernel's verifier has to do. [`edges`]: what is too much is refused by name.
//! - [`commands`], [`top`]: what people see. [`metrics`], [`scrapers`]: what scrapers see. [`cost`]: what it costs.

mod affinity;
mod attached;
mod balancing;
mod cached;
mod capabilities;
mod closer;
mod commands;
mod configuration;
mod control_group;
mod cost;
mod counts;
mod datagrams;
mod direct;
mod drained;
mod edges;
mod ends;
mod enrolment;
mod events;
mod faults;
mod footprint;
mod health_checks;
mod inbound;
mod init;
mod instructions;
mod interrupted;
mod lifecycle;
mod limits;
mod locality;
mod losses;
mod metrics;
mod out_of_memory;
mod outliers;
mod pace;
mod pair;
mod policy;
mod privilege;
mod quarantine;
mod rejected;
mod removal;
mod rest;
mod scale;
mod scrapers;
mod seats;
mod snapshot;
mod spread;
mod standby;
mod startup;
mod steps;
mod top;
mod traffic;

use holdfast_tests::scene;
