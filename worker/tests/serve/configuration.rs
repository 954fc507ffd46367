//! Configurations that the worker's user can read, on disk for one test.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_protocol::kernel::{FrontendKey, PROTOCOL_TCP, mapped};
use tempfile::TempDir;

/// A directory that everybody may enter.
pub fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A directory with one file in it, and that file.
pub fn file(text: &str) -> (TempDir, PathBuf) {
    let directory = directory();
    let path = directory.path().join("holdfast.yaml");
    write(&path, text);
    (directory, path)
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// `services` services, numbered, each with one address and an endpoint for each of `ports`.
pub fn services(services: u32, ports: &[u16]) -> String {
    let mut text = "services:\n".to_owned();
    for number in 0..services {
        let [_, high, middle, low] = number.to_be_bytes();
        write!(
            text,
            "  - name: s{number}\n    addresses: [127.{}.{middle}.{low}]\n    \
             ports: [{{ name: http, port: 80 }}]\n    endpoints:\n",
            64 + high
        )
        .unwrap();
        for port in ports {
            writeln!(text, "      - {{ address: 127.0.0.1, port: {port} }}").unwrap();
        }
    }
    text
}

/// The frontend of service `number` of [`services`].
pub fn key(number: u32) -> FrontendKey {
    let [_, high, middle, low] = number.to_be_bytes();
    FrontendKey {
        address: mapped(u32::from_ne_bytes([127, 64 + high, middle, low])),
        port_be: 80_u16.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: 0,
    }
}
