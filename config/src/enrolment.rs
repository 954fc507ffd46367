//! `enrolment`: which sockets of the governed cgroup are governed.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use crate::fields::{Fields, list, scalar};
use crate::limit::{MAX_ENROLLED, MAX_PATH_BYTES};
use crate::model::Enrolment;
use crate::report::{Excerpt, Report};
use crate::tree::{Node, Scalar, Value};

/// The key of a file.
pub(crate) const KEY: &str = "enrolment";
const KEYS: [&str; 2] = ["cgroups", "network_namespaces"];

/// The enrolment that `node` says, the value of [`KEY`].
pub(crate) fn enrolment(node: &Node, report: &mut Report<'_>) -> Option<Enrolment> {
    let fields = Fields::of(node, "`enrolment`", &KEYS, report)?;
    let enrolment = Enrolment {
        cgroups: paths(&fields, KEYS[0], report),
        network_namespaces: paths(&fields, KEYS[1], report),
    };
    if matches!(&node.value, Value::Mapping(entries) if entries.is_empty()) {
        let message = "`enrolment` lists nothing: leave it out to govern the whole cgroup";
        report.at(node.position, message);
    }
    Some(enrolment)
}

/// The paths of the list `key`, which may be left out, but not be empty: nobody would be governed.
fn paths(fields: &Fields<'_>, key: &str, report: &mut Report<'_>) -> Vec<PathBuf> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    let Some(items) = list(node, key, MAX_ENROLLED, report) else { return Vec::new() };
    if items.is_empty() {
        report.at(node.position, format_args!("`{key}` is empty: write at least one"));
    }
    let mut first = HashMap::new();
    let mut paths = Vec::with_capacity(items.len());
    for item in items {
        let accepted = scalar(item, "the path", report)
            .and_then(|scalar| report.accept(item.position, absolute(scalar)));
        let Some(path) = accepted else { continue };
        if let Some(earlier) = first.insert(path.clone(), item.position) {
            let path = path.display();
            report.at(item.position, format_args!("{path} is listed already at {earlier}"));
        }
        paths.push(path);
    }
    paths
}

/// An absolute path that leads nowhere but down.
fn absolute(scalar: &Scalar) -> Result<PathBuf, String> {
    let text = scalar.text.as_str();
    let wanted = "write it from the root on, without `.` and `..`, such as \
                  /sys/fs/cgroup/web.slice or /run/netns/blue";
    if scalar.is_null() {
        return Err(format!("the path is empty: {wanted}"));
    }
    if text.len() > MAX_PATH_BYTES {
        return Err(format!("a path of {} bytes: the limit is {MAX_PATH_BYTES}", text.len()));
    }
    let leads_down =
        |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let path = Path::new(text);
    if !path.is_absolute() || text.contains('\0') || text.split('/').any(|part| part == ".") {
        return Err(format!("the path {} is not absolute: {wanted}", Excerpt(text)));
    }
    if !path.components().all(leads_down) {
        return Err(format!("the path {} leads upwards: {wanted}", Excerpt(text)));
    }
    Ok(path.components().collect())
}
