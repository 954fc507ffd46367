//! A real worker on real maps, led by a supervisor that the test plays. Needs root.
#![expect(clippy::unwrap_used, reason = "in a test, what is not there is a failure")]

mod ahead;
mod arrivals;
mod configuration;
mod confined;
mod eras;
mod estate;
mod faults;
mod handover;
mod measure;
mod recognised;
mod saves;
mod scrapes;
mod snapshot;
mod standby;
mod supervisor;
mod undertaker;
mod windows;
