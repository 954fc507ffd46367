//! The access policies: put in force together with the services, and again when a cgroup that they name
//! comes, goes or is made anew.

use holdfast_bpf::BpfError;

use super::{Role, Session, SessionError, Work};
use crate::serve::compile::Compiled;
use crate::serve::policy::estate::{PolicyReader, PolicyWriter};
use crate::serve::policy::image::TooLarge;
use crate::serve::policy::plan::{Change, carry_out, plan};
use crate::serve::policy::resolve::{Resolution, resolve};

/// What is to be done to the access policies.
#[derive(Debug)]
pub(super) struct NewPolicies {
    resolution: Resolution,
    /// `None` when nothing is, or all of it is done.
    change: Option<Change>,
}

impl NewPolicies {
    /// So that those of `compiled` are in force.
    pub(super) fn plan(estate: &impl PolicyReader, compiled: &Compiled) -> Result<Self, TooLarge> {
        let resolution = resolve(&compiled.access);
        let change = plan(estate, &compiled.access, &resolution)?;
        Ok(Self { resolution, change })
    }

    /// Does it, once.
    pub(super) fn carry_out(&mut self, writer: &mut impl PolicyWriter) -> Result<(), BpfError> {
        self.change.take().map_or(Ok(()), |change| carry_out(&change, writer))
    }

    /// The cgroups they were compiled for.
    pub(super) fn into_resolution(self) -> Resolution {
        self.resolution
    }
}

impl Session {
    /// Looks whether the cgroups that the policies in force name are still the same, and puts the
    /// policies in force anew if they are not.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn look_at_cgroups(&mut self) -> Result<(), SessionError> {
        let Role::Granted { maps, work: Work::Settled, .. } = &mut self.role else { return Ok(()) };
        let Some((compiled, resolution)) = &mut self.policies else { return Ok(()) };
        if resolve(&compiled.access) == *resolution {
            return Ok(());
        }
        match NewPolicies::plan(maps, compiled) {
            Ok(mut policies) => {
                policies.carry_out(maps)?;
                *resolution = policies.into_resolution();
                tracing::info!("a cgroup that an identity names is another; the policies follow");
            }
            Err(error) => tracing::error!(%error, "cannot follow the cgroups that identities name"),
        }
        Ok(())
    }
}
