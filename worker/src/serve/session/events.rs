//! What a granted worker does with the events that the kernel programs tell.

use std::time::{Duration, Instant};

use holdfast_bpf::BpfError;
use holdfast_config::LogFormat;
use holdfast_protocol::control::WorkerAnswer;

use super::{Role, Session};
use crate::serve::compile::Compiled;
use crate::serve::tables::maps::Counters as _;

impl Session {
    /// The access log is what `compiled` says from now on.
    pub(super) fn log_as(&mut self, compiled: &Compiled) {
        if let Role::Granted { maps, .. } = &mut self.role {
            self.events.configure(compiled.access_log.clone(), maps);
        }
    }

    /// Deals with the events that wait, for a bounded time. Returns when to look again; `None` when that
    /// is soon enough with the next heartbeat, or when something has happened.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tell(&mut self, now: Instant) -> Result<Option<Duration>, BpfError> {
        let Role::Granted { maps, .. } = &mut self.role else { return Ok(None) };
        // They wait until it is known how they are written, or that this will not be known.
        if !self.events.is_configured() && self.latest.is_none() {
            return Ok(None);
        }
        self.events.turn(maps, now)
    }

    /// What has happened to connections of `service`, or of all, since the answer `after` which this one comes.
    pub(super) fn follow(
        &mut self,
        after: Option<u64>,
        service: &str,
        is_json: bool,
        now: Instant,
    ) -> WorkerAnswer {
        let Role::Granted { maps, .. } = &mut self.role else {
            return WorkerAnswer::Failed { reason: "this worker does not govern".to_owned() };
        };
        let format = if is_json { LogFormat::Json } else { LogFormat::Text };
        // What waits is looked at first: what has happened before the first question is no answer to it.
        self.events.follow(now);
        match self.events.turn(maps, now) {
            Ok(_) => self.events.answer(after, service, format, maps.event_control().lost),
            Err(error) => WorkerAnswer::Failed { reason: error.to_string() },
        }
    }
}
