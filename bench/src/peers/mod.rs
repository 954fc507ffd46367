//! What people use instead, each as they would.
//!
//! - [`proxy`]: HAProxy, nginx and Envoy, which stand between client and backend.
//! - [`translation`]: rules of the kernel: nftables and IPVS.
//!
//! A peer that this machine does not have is no error of a measurement: whoever asks for it gets the
//! reason, and shows that. `tools/peers` installs all of them.

pub mod proxy;
pub mod translation;

use std::path::{Path, PathBuf};

/// Why a peer cannot be measured here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(pub String);

/// A program of the distribution.
fn installed(path: &str, package: &str) -> Result<PathBuf, Missing> {
    let missing =
        || Missing(format!("{path} is missing: run tools/peers, or apt-get install {package}"));
    Path::new(path).is_file().then(|| PathBuf::from(path)).ok_or_else(missing)
}
