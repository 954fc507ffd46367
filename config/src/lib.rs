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
//! `balancing` is what `load_balancing` says, `health_check` the key of that name, `outlier` that of `outlier_ejection`, `drain` that of its own name, `policy` what access
//! policies say, `access_log` both, and `enrolment` what stands beside the services, `once` for all files; `check` compares
//! services with each other; `report` and `diagnostic` keep what is wrong.
//! [`snapshot`] makes one file of [`Sources`] and back.
//! [`Incremental`] parses a save after another one, and a [`List`] shares with the next one what stays.
//! [`limit`] has every bound, [`model`](Config) what comes out.
//!
//! **Architecture Invariant:** only `read` touches the system. Everything else is a pure function
//! of the text, so a configuration means the same wherever and whenever it is looked at.
#![forbid(unsafe_code)]

mod access_log;
mod balancing;
mod check;
mod decode;
mod diagnostic;
mod direct;
mod drain;
mod enrolment;
mod fields;
mod health_check;
mod incremental;
pub mod limit;
mod limits;
mod list;
mod locality;
mod model;
mod once;
mod outlier;
mod policy;
mod read;
mod report;
mod scalar;
pub mod snapshot;
mod source;
mod tree;

pub use access_log::{AccessLog, LogEntries, LogEvent, LogFormat, Sample};
pub use balancing::{Affinity, Balancing, ClientBy, TABLE_SIZES};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use drain::Drain;
pub use health_check::{HealthCheck, Http, Probe, WhenAllUnhealthy};
pub use incremental::{Incremental, Parsed};
pub use list::List;
pub use locality::{Locality, LocalityMode, MAX_PRIORITY, Place};
pub use model::{
    Alias, ClientRate, Config, Endpoint, Enrolment, Limits, NoEndpoint, Policy, Port, Protocol,
    Rate, Service,
};
pub use outlier::{FailureRate, OutlierEjection};
pub use policy::{
    Access, AccessPolicy, Action, Cidr, Direction, Group, Identity, PortRange, Rule, Side,
};
pub use read::{ReadError, read};
pub use source::{Source, Sources};

use std::sync::Arc;

use decode::Contents;
use diagnostic::{FileName, Position};
use incremental::Shape;
use incremental::layout::Layout;
use report::Report;

/// The configuration that `sources` say.
///
/// # Errors
///
/// Every error in all files. None of the services may be put in force then: a service that is
/// missing because of an error would look like one that was removed.
pub fn parse(sources: &Sources) -> Result<Config, Diagnostics> {
    whole(sources).map(|(config, _)| config)
}

/// The same, and for each file what it consists of.
fn whole(sources: &Sources) -> Result<(Config, Vec<Shape>), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let files = names(sources);
    if files.is_empty() {
        let nowhere = FileName::new(0, "configuration");
        diagnostics.push(&nowhere, Position::START, "there is no file");
    }
    let (mut services, mut nodes, mut enrolments) = (Vec::new(), Vec::new(), Vec::new());
    let (mut access_logs, mut cuts_existing) = (Vec::new(), Vec::new());
    let (mut access, mut shapes) = (Vec::new(), Vec::new());
    for (number, file) in sources.files().iter().enumerate() {
        let mut report = Report::new(&mut diagnostics, files[number].clone());
        let (contents, layout) = contents_of(file, number, &mut report);
        shapes.push(Shape { services: contents.services.len(), layout });
        services.extend(contents.services);
        nodes.extend(contents.node);
        enrolments.extend(contents.enrolment);
        access_logs.extend(contents.access_log);
        cuts_existing.extend(contents.cuts_existing);
        access.push(contents.access);
    }
    let node = once::only(decode::NODE_KEY, nodes, &files, &mut diagnostics);
    let enrolment = once::only(enrolment::KEY, enrolments, &files, &mut diagnostics);
    let access_log = once::only(access_log::KEY, access_logs, &files, &mut diagnostics);
    check::all(&services, node.is_some(), &files, &mut diagnostics);
    let mut access = policy::check::all(access, &files, &mut diagnostics);
    let key = policy::decode::INBOUND_KEY;
    let cuts_existing = once::only(key, cuts_existing, &files, &mut diagnostics);
    access.cuts_existing = cuts_existing.unwrap_or(false);
    if diagnostics.total() > 0 {
        return Err(diagnostics.finish(sources.files()));
    }
    // They were made beside a tree that is many times larger, and each would keep some of its memory from
    // being given back. Copied now, they stand side by side.
    let services = services.iter().map(|located| Arc::new(located.service.clone())).collect();
    Ok((Config { node, services, enrolment, access_log, access }, shapes))
}

/// What errors call the files.
fn names(sources: &Sources) -> Vec<FileName> {
    let files = sources.files().iter().enumerate();
    files.map(|(number, file)| FileName::new(number, &file.label)).collect()
}

/// What one file says, and where its services stand. Its tree is gone when the next file's is grown.
fn contents_of(
    file: &Source,
    number: usize,
    report: &mut Report<'_>,
) -> (Contents, Option<Layout>) {
    if file.contents.len() > limit::MAX_FILE_BYTES {
        let limit = limit::MAX_FILE_BYTES;
        report.at(
            Position::START,
            format_args!("the file is larger than the limit of {limit} bytes"),
        );
        return Default::default();
    }
    match std::str::from_utf8(&file.contents) {
        Ok(text) => tree::grow(text, report)
            .map(|root| (decode::contents(&root, number, report), Layout::of(text, &root)))
            .unwrap_or_default(),
        Err(error) => {
            let offset = error.valid_up_to();
            let at = Position::after(&file.contents[..offset]);
            report.at(
                at,
                format_args!("the byte at offset {offset} is not UTF-8: save the file as UTF-8"),
            );
            Default::default()
        }
    }
}
