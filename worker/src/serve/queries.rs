//! Questions about what is programmed, answered a page at a time.

use std::time::{Duration, Instant};

use holdfast_bpf::BpfError;
use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};

use super::policy::estate::PolicyReader;
use super::rows::{self, Snapshot, View};
use super::tables::estate::Reader;
use super::tables::maps::Counters;
use super::tables::observe::observe;

/// How long the rows of a query are kept for the pages that follow. Reading a full estate back for
/// each page of it would take longer than the pages themselves.
const SNAPSHOT_LIFE: Duration = Duration::from_secs(10);

/// What was read back for the query that is being answered.
#[derive(Debug, Default)]
pub struct Queries {
    kept: Option<(Instant, Snapshot)>,
}

impl Queries {
    /// The answer to `query` about `maps`, with what else `view` knows.
    pub fn answer<M: Reader + Counters + PolicyReader>(
        &mut self,
        query: &WorkerQuery,
        maps: &M,
        view: View<'_>,
        now: Instant,
    ) -> WorkerAnswer {
        self.page(query, maps, view, now)
            .unwrap_or_else(|error| WorkerAnswer::Failed { reason: error.to_string() })
    }

    fn page<M: Reader + Counters + PolicyReader>(
        &mut self,
        query: &WorkerQuery,
        maps: &M,
        view: View<'_>,
        now: Instant,
    ) -> Result<WorkerAnswer, BpfError> {
        let offset = match *query {
            WorkerQuery::Services { offset } | WorkerQuery::Endpoints { offset } => offset,
            WorkerQuery::Policies { offset } => return rows::policies(offset, maps),
            // Of what happens, not of what is programmed.
            WorkerQuery::Trace { .. } => {
                let reason = "it is not asked here what happens to connections".to_owned();
                return Ok(WorkerAnswer::Failed { reason });
            }
        };
        let usable =
            self.kept.take().filter(|(taken, _)| offset > 0 && now < *taken + SNAPSHOT_LIFE);
        let (taken, snapshot) = match usable {
            Some(kept) => kept,
            None => (now, Snapshot::new(&observe(maps)?, view)),
        };
        let answer = match query {
            WorkerQuery::Services { .. } => snapshot.services(offset, maps)?,
            _ => snapshot.endpoints(offset, maps),
        };
        if let WorkerAnswer::Services { next: Some(_), .. }
        | WorkerAnswer::Endpoints { next: Some(_), .. } = answer
        {
            self.kept = Some((taken, snapshot));
        }
        Ok(answer)
    }
}
