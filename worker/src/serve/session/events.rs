//! What a granted worker does with the events that the kernel programs tell.

use std::time::{Duration, Instant};

use holdfast_bpf::BpfError;
use holdfast_config::LogFormat;
use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};
use holdfast_protocol::wire;

use super::{Role, Session};
use crate::serve::compile::Compiled;
use crate::serve::tables::maps::Counters as _;

/// How soon a worker that may not read events, or does not know what to do with them, looks again.
const LATER: Duration = Duration::from_millis(200);

impl Session {
    /// The access log is what `compiled` says from now on.
    pub(super) fn log_as(&mut self, compiled: &Compiled) {
        if let Role::Granted { maps, .. } = &mut self.role {
            self.events.configure(compiled.access_log.clone(), maps);
        }
    }

    /// Deals with the events that wait, for a bounded time. Returns when to look again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn tell(&mut self, now: Instant) -> Result<Duration, BpfError> {
        let Role::Granted { maps, .. } = &mut self.role else { return Ok(LATER) };
        // They wait until it is known how they are written, or that this will not be known.
        if !self.events.is_configured() && self.latest.is_none() {
            return Ok(LATER);
        }
        self.events.turn(maps, now)
    }

    /// The answer to `query` if it is one of somebody who follows connections live.
    pub(super) fn answer_follower(&mut self, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let Ok(WorkerQuery::Trace { after, service, json }) = wire::decode(query) else {
            return None;
        };
        let format = if json { LogFormat::Json } else { LogFormat::Text };
        let answer = match &mut self.role {
            Role::Granted { maps, .. } => {
                let lost = maps.event_control().lost;
                let answer = self.events.answer(after, &service, format, lost, now);
                // From now on, and not only from the next turn.
                match self.events.turn(maps, now) {
                    Ok(_) => answer,
                    Err(error) => WorkerAnswer::Failed { reason: error.to_string() },
                }
            }
            _ => WorkerAnswer::Failed { reason: "this worker does not govern".to_owned() },
        };
        Some(wire::encode(&answer).expect("an answer's worth of lines is bounded"))
    }
}
