//! What this supervisor was told, with everything looked up and absolute.

use std::io;
use std::path::{Path, PathBuf};

use crate::access::ControlGroup;
use crate::access_log::AccessLog;
use crate::command::{LogFormat, Run, Whereabouts};
use crate::instance::Places;
use crate::loader::{Limits, Plan};

/// What this supervisor was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the loader is told.
    pub plan: Plan,
    /// Where the instance keeps what.
    pub places: Places,
    /// The configuration's path. Whether there is anything is the worker's business.
    pub config: PathBuf,
    /// The user the worker becomes.
    pub worker_user: String,
    /// Whether that may be root.
    pub allow_root_worker: bool,
    /// Whose members may ask questions over the control socket.
    pub control_group: Option<ControlGroup>,
    /// Whether a spare worker is kept.
    pub standby: bool,
    /// How the worker logs.
    pub log_format: LogFormat,
    /// Where it writes the access log.
    pub access_log: AccessLog,
}

impl Settings {
    /// The settings of `run` on `cgroup`. Paths become absolute without resolving links: a link
    /// that is changed later is meant to be followed then.
    ///
    /// # Errors
    ///
    /// When the working directory is gone.
    pub fn new(run: &Run, cgroup: &Path, control_group: Option<ControlGroup>) -> io::Result<Self> {
        let mut plan = plan(&run.whereabouts, cgroup)?;
        plan.limits =
            Some(Limits { services: run.max_services, slots: run.max_slots, flows: run.max_flows });
        Ok(Self {
            plan,
            places: run.whereabouts.places().absolute()?,
            config: std::path::absolute(&run.config)?,
            worker_user: run.worker_user.clone(),
            allow_root_worker: run.allow_root_worker,
            standby: run.standby,
            control_group,
            log_format: run.whereabouts.log_format,
            access_log: AccessLog::new(run.access_log.as_deref())?,
        })
    }
}

/// What the loader is told about the instance at `whereabouts`, which governs `cgroup`.
///
/// # Errors
///
/// When the working directory is gone.
pub fn plan(whereabouts: &Whereabouts, cgroup: &Path) -> io::Result<Plan> {
    Ok(Plan {
        worker: std::path::absolute(whereabouts.worker_binary())?,
        instance: whereabouts.instance.as_str().to_owned(),
        cgroup: std::path::absolute(cgroup)?,
        bpffs: std::path::absolute(&whereabouts.bpffs)?,
        limits: None,
    })
}
