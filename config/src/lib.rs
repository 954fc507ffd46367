//! The configuration language: text to a validated [`Config`], or to every error in it.
//!
//! ```
//! let text = "
//! services:
//!   - name: web
//!     addresses: [127.96.0.10]
//!     ports: [{ name: http, port: 0 }]
//! ";
//! let errors = holdfast_config::parse(&holdfast_config::Sources::single("web.yaml", text));
//! assert_eq!(
//!     errors.unwrap_err().to_string(),
//!     "web.yaml:5:33: port 0 is out of range: write a port between 1 and 65535",
//! );
//! ```
//!
//! In reading order: [`read`] turns a path into [`Sources`]; `tree` turns text into nodes that know
//! where they stand; `decode` turns nodes into services with the help of `fields` and `scalar`;
//! `check` compares services with each other; `policy` is the same for access policies; `report` and `diagnostic` keep what is wrong.
//! [`snapshot`] makes one file of [`Sources`] and back.
//! [`limit`] has every bound, [`model`](Config) what comes out.
//!
//! **Architecture Invariant:** only `read` touches the system. Everything else is a pure function
//! of the text, so a configuration means the same wherever and whenever it is looked at.
#![forbid(unsafe_code)]

mod check;
mod decode;
mod diagnostic;
mod fields;
pub mod limit;
mod model;
mod policy;
mod read;
mod report;
mod scalar;
pub mod snapshot;
mod source;
mod tree;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use model::{Config, Endpoint, NoEndpoint, Policy, Port, Protocol, Service};
pub use policy::{Access, AccessPolicy, Action, Cidr, Group, Identity, PortRange, Rule, Side};
pub use read::{ReadError, read};
pub use source::{Source, Sources};

use diagnostic::{FileName, Position};
use report::Report;
use tree::Node;

/// The configuration that `sources` say.
///
/// # Errors
///
/// Every error in all files. None of the services may be put in force then: a service that is
/// missing because of an error would look like one that was removed.
pub fn parse(sources: &Sources) -> Result<Config, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let files: Vec<FileName> = sources
        .files()
        .iter()
        .enumerate()
        .map(|(number, file)| FileName::new(number, &file.label))
        .collect();
    if files.is_empty() {
        let nowhere = FileName::new(0, "configuration");
        diagnostics.push(&nowhere, Position::START, "there is no file");
    }
    let mut services = Vec::new();
    let mut access = Vec::new();
    for (number, file) in sources.files().iter().enumerate() {
        let mut report = Report::new(&mut diagnostics, files[number].clone());
        if let Some(root) = tree_of(file, &mut report) {
            services.extend(decode::services(&root, number, &mut report));
            access.push(policy::decode::access(&root, number, &mut report));
        }
    }
    check::all(&services, &files, &mut diagnostics);
    let access = policy::check::all(access, &files, &mut diagnostics);
    if diagnostics.total() > 0 {
        return Err(diagnostics.finish(sources.files()));
    }
    Ok(Config { services: services.into_iter().map(|located| located.service).collect(), access })
}

/// The tree of one file. It is gone when the next file's is grown.
fn tree_of(file: &Source, report: &mut Report<'_>) -> Option<Node> {
    if file.contents.len() > limit::MAX_FILE_BYTES {
        let limit = limit::MAX_FILE_BYTES;
        report.at(
            Position::START,
            format_args!("the file is larger than the limit of {limit} bytes"),
        );
        return None;
    }
    match std::str::from_utf8(&file.contents) {
        Ok(text) => tree::grow(text, report),
        Err(error) => {
            let offset = error.valid_up_to();
            let at = Position::after(&file.contents[..offset]);
            report.at(
                at,
                format_args!("the byte at offset {offset} is not UTF-8: save the file as UTF-8"),
            );
            None
        }
    }
}
