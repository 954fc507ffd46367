//! What `holdfastctl` lists.

use std::net::SocketAddr;

use holdfast_lab::{Lab, LabError};
use serde_json::Value;

/// The rows of `holdfastctl services --json`.
///
/// # Errors
///
/// When it fails, or prints no list.
pub fn services(lab: &Lab) -> Result<Vec<Value>, LabError> {
    rows(lab, "services")
}

/// The rows of `holdfastctl COMMAND --json`.
///
/// # Errors
///
/// When it fails, or prints no list.
pub fn rows(lab: &Lab, command: &str) -> Result<Vec<Value>, LabError> {
    let printed = lab.json(&[command])?;
    match printed.as_array() {
        Some(rows) => Ok(rows.clone()),
        None => Err(LabError::Unexpected(format!("no list: {printed}"))),
    }
}

/// What `holdfastctl endpoints` says of the endpoint of `service` at `address`.
///
/// # Errors
///
/// When there is no such endpoint, or it cannot be asked.
pub fn endpoint_row(lab: &Lab, service: &str, address: SocketAddr) -> Result<Value, LabError> {
    let (all, endpoint) = (rows(lab, "endpoints")?, address.to_string());
    let row = all.iter().find(|row| row["service"] == service && row["endpoint"] == endpoint);
    row.cloned()
        .ok_or_else(|| LabError::Unexpected(format!("no {endpoint} of {service} in {all:?}")))
}

/// What the service `name` has counted in `column`: `connections` or `refused`.
///
/// # Errors
///
/// When there is no such service, or it cannot be asked.
pub fn counted(lab: &Lab, name: &str, column: &str) -> Result<u64, LabError> {
    let services = services(lab)?;
    let row = services.iter().find(|row| row["service"] == name);
    let count = row.and_then(|row| row[column].as_u64());
    count.ok_or_else(|| LabError::Unexpected(format!("no {column} of {name} in {services:?}")))
}
