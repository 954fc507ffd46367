//! Who is enrolled: put in force with the configuration, and looked up again while it stays, because
//! cgroups and namespaces come and go without a save.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Role, Session, SessionError, Work};
use crate::serve::compile::Compiled;
use crate::serve::resolve::{Resolved, resolve};
use crate::serve::tables::enrolment::put_in_force;

/// What the enrolment in force was made from.
#[derive(Debug, Default)]
pub(super) struct Enrolling {
    /// The configuration that is in force, if this worker has put it there.
    compiled: Option<Arc<Compiled>>,
    /// Paths that were missing at the last look, and why.
    missing: Vec<(PathBuf, String)>,
}

impl Session {
    /// Looks the paths of the enrolment up again, if that is what there is time for.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn look_up_again(&mut self) -> Result<(), SessionError> {
        let compiled = self.enrolling.compiled.clone();
        match compiled.filter(|compiled| compiled.enrolment.is_some()) {
            Some(compiled) if self.is_settled() => self.enrol(&compiled),
            _ => Ok(()),
        }
    }

    /// Puts the enrolment of `compiled` in force.
    pub(super) fn enrol(&mut self, compiled: &Arc<Compiled>) -> Result<(), SessionError> {
        let Role::Granted { maps, .. } = &mut self.role else { return Ok(()) };
        let resolved = compiled.enrolment.as_ref().map(resolve);
        let members = resolved.as_ref().map(|resolved| &resolved.members);
        let is_changed = put_in_force(maps, members)?;
        if is_changed {
            match members {
                Some(members) => tracing::info!(enrolled = members.len(), "enrolment is in force"),
                None => tracing::info!("every socket of the cgroup is enrolled"),
            }
        }
        self.enrolling.compiled = Some(Arc::clone(compiled));
        self.report_missing(resolved.unwrap_or_default());
        Ok(())
    }

    /// Names what is missing, once for each change.
    fn report_missing(&mut self, Resolved { missing, .. }: Resolved) {
        if missing == self.enrolling.missing {
            return;
        }
        for (path, reason) in &missing {
            let path = path.display();
            tracing::warn!(%path, reason, "listed in `enrolment`, and not enrolled until it is there");
        }
        self.enrolling.missing = missing;
    }

    const fn is_settled(&self) -> bool {
        matches!(self.role, Role::Granted { work: Work::Settled, .. })
    }
}
