//! What the keeper answers to people.

use std::time::{Duration, Instant};

use actix::{Handler, Message, ResponseFuture};
use holdfast_protocol::control::{
    ConfigStatus, Request, Response, StandbyStatus, Status, SupervisorStatus, WorkerStatus,
};
use holdfast_protocol::handover::MAX_RELAY_BYTES;
use tokio::time::timeout;

use super::keeper::Keeper;
use super::requests::ReloadOutcome;
use crate::channel::Channel;
use crate::takeover::Event;
use crate::{proc_status, record, status};

/// How long the worker may take to answer a question: it answers between two services it writes.
const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// A question for the keeper.
pub struct Ask(pub Request);

/// Somebody wants everything removed, and will be told what was.
pub struct Uninstall(pub Channel);

impl Message for Ask {
    type Result = Response;
}

impl Message for Uninstall {
    /// The peer again, with the reason, if it cannot be done.
    type Result = Option<(Channel, String)>;
}

impl Handler<Ask> for Keeper {
    type Result = ResponseFuture<Response>;

    fn handle(&mut self, Ask(request): Ask, ctx: &mut Self::Context) -> Self::Result {
        match request {
            Request::Status => ready(Response::Status(Box::new(self.status()))),
            Request::Reload => self.reload(ctx),
            Request::Worker(body) => self.ask_worker(body, ctx),
            // Sessions hand their connection over with that one.
            Request::Uninstall => failed("not understood"),
        }
    }
}

impl Handler<Uninstall> for Keeper {
    type Result = Option<(Channel, String)>;

    fn handle(&mut self, Uninstall(peer): Uninstall, ctx: &mut Self::Context) -> Self::Result {
        if let Err(error) = record::write_intent(&self.settings.places.uninstall_intent()) {
            return Some((peer, format!("nothing was removed: {error}")));
        }
        tracing::info!("removing everything, as asked for");
        self.uninstallers.push(peer);
        self.waiters.give_up("everything is being removed");
        self.feed(Event::Uninstall, Instant::now(), ctx);
        None
    }
}

impl Keeper {
    fn reload(&mut self, ctx: &mut actix::Context<Self>) -> ResponseFuture<Response> {
        if self.state.leaving().is_some() {
            return failed("the supervisor is leaving");
        }
        let Some(outcome) = self.waiters.wait() else {
            return failed("too many reloads are waited for already");
        };
        tracing::info!("reload asked for");
        self.proof.binaries.forgive();
        self.feed(Event::Reload, Instant::now(), ctx);
        Box::pin(async {
            match outcome.await {
                // The session, which knows when it was asked, fills in how long it took.
                Ok(ReloadOutcome::Granted { epoch, pid }) => {
                    Response::Reloaded { epoch, pid, total_us: 0 }
                }
                Ok(ReloadOutcome::Failed(reason)) => Response::Failed { reason },
                Err(_) => Response::Failed { reason: "the supervisor is leaving".to_owned() },
            }
        })
    }

    fn ask_worker(
        &mut self,
        body: Vec<u8>,
        ctx: &mut actix::Context<Self>,
    ) -> ResponseFuture<Response> {
        if body.len() > MAX_RELAY_BYTES {
            return failed(&format!("a question may have {MAX_RELAY_BYTES} bytes"));
        }
        let Some(answer) = self.relay(body, ctx) else {
            return failed("no worker is granted at this moment, or it is too busy; try again");
        };
        Box::pin(async {
            match timeout(WORKER_PATIENCE, answer).await {
                Ok(Ok(body)) => Response::Worker(body),
                _ => Response::Failed {
                    reason: format!("the worker did not answer within {WORKER_PATIENCE:?}"),
                },
            }
        })
    }

    /// Everything that is known at this moment.
    fn status(&self) -> Status {
        let settings = &self.settings;
        let plan = &settings.plan;
        Status {
            instance: plan.instance.clone(),
            supervisor: SupervisorStatus {
                pid: std::process::id(),
                uptime_s: self.started.elapsed().as_secs(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                capabilities: capabilities(),
            },
            worker: self.worker_status(),
            standby: self.standby_status(),
            epoch: self.state.epoch(),
            config: ConfigStatus {
                path: settings.config.display().to_string(),
                digest: self.config.digest.clone(),
                state: self.config.state,
                error: self.config.error.clone(),
                origin: self.config.origin,
                probation: self.proof.trials.tries(&self.config.digest),
                set_aside: self.proof.trials.set_aside().to_vec(),
                snapshot: self.proof.snapshot.clone(),
            },
            services: self.config.services,
            endpoints: self.config.endpoints,
            links: self.estate.links(&plan.cgroup, &plan.bpffs, &plan.instance),
            takeovers: self.ledger.shown().clone(),
            replacements: self.replacements.clone(),
            drift: self.drift.shown(),
        }
    }

    fn standby_status(&self) -> Option<StandbyStatus> {
        let spare = self.state.spare()?;
        let live = self.workers.get(&spare.id)?;
        Some(StandbyStatus {
            pid: live.child.pid(),
            state: spare.phase.as_str()?.to_owned(),
            uptime_s: live.since.elapsed().as_secs(),
            version: live.version.clone(),
        })
    }

    fn worker_status(&self) -> WorkerStatus {
        let shown = status::foremost(&self.state)
            .and_then(|worker| Some((worker.phase, self.workers.get(&worker.id)?)));
        let mut found = match shown {
            Some((phase, live)) => {
                let (pid, age) = (live.child.pid(), live.since.elapsed());
                let mut shown = status::worker(phase, pid, age, &live.version, self.state.epoch());
                let former = live.exposure.binary.as_ref().is_some_and(|chosen| chosen.is_former);
                shown.binary = if former { "former" } else { "on-disk" }.to_owned();
                shown
            }
            None => status::no_worker(&self.state, self.time(Instant::now())),
        };
        found.reason.clone_from(&self.trouble);
        found
    }
}

/// Names of what this process may do, as the kernel says.
fn capabilities() -> Vec<String> {
    let own = proc_status::of(std::process::id()).unwrap_or_default();
    proc_status::names(own.capabilities)
}

fn ready(response: Response) -> ResponseFuture<Response> {
    Box::pin(std::future::ready(response))
}

fn failed(reason: &str) -> ResponseFuture<Response> {
    ready(Response::Failed { reason: reason.to_owned() })
}
