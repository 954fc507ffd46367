//! Asking a supervisor: over its control socket, and through `holdfastctl`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_protocol::control::{
    Request, Response, SOCKET_NAME, Status, WorkerAnswer, WorkerQuery,
};
use holdfast_protocol::wire::{MAX_PACKET_BYTES, decode, encode};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use crate::binaries;
use crate::error::LabError;
use crate::inside::{Ended, INSTANCE, Lab};

/// How long a supervisor may take to answer. It answers between two events, in microseconds; this
/// only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the lab's supervisor listens.
#[must_use]
pub fn socket_path(lab: &Lab) -> PathBuf {
    socket_of(lab, INSTANCE.as_ref())
}

/// Where the supervisor of another instance in this lab listens.
#[must_use]
pub fn socket_of(lab: &Lab, instance: &OsStr) -> PathBuf {
    lab.run_directory().join(instance).join(SOCKET_NAME)
}

/// What the supervisor at the socket `path` says about itself.
///
/// # Errors
///
/// When nobody listens there, or the answer is another one.
pub fn status(path: &Path) -> Result<Status, LabError> {
    match ask(path, &Request::Status)? {
        Response::Status(status) => Ok(*status),
        other => Err(LabError::Unexpected(format!("asked for the status, answered {other:?}"))),
    }
}

/// One request, and its first answer.
///
/// # Errors
///
/// When nobody listens at `path`, or the answer cannot be read.
pub fn ask(path: &Path, request: &Request) -> Result<Response, LabError> {
    let packet = encode(request)?;
    let answer = exchange(path, &packet).map_err(LabError::file("ask the supervisor at", path))?;
    Ok(decode(&answer)?)
}

/// One question to the worker that serves, and its answer.
///
/// # Errors
///
/// When nobody listens at `path`, or there is no such worker.
pub fn ask_worker(path: &Path, query: &WorkerQuery) -> Result<WorkerAnswer, LabError> {
    match ask(path, &Request::Worker(encode(query)?))? {
        Response::Worker(answer) => Ok(decode(&answer)?),
        other => Err(LabError::Unexpected(format!("asked the worker, answered {other:?}"))),
    }
}

fn exchange(path: &Path, packet: &[u8]) -> io::Result<Vec<u8>> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    send(socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = vec![0; MAX_PACKET_BYTES];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

impl Lab {
    /// Runs `holdfastctl` on this lab's instance to its end: `ctl(&["reload"])`.
    ///
    /// # Errors
    ///
    /// When it cannot be run; that it fails is for the caller to judge.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Ended, LabError> {
        Ended::run(&mut self.ctl_command(arguments)?)
    }

    /// Such a `holdfastctl`, to be run.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn ctl_command(&self, arguments: &[&str]) -> Result<Command, LabError> {
        let mut command = self.beside(binaries::find(binaries::CTL)?)?;
        command.args(["--instance", INSTANCE, "--run-dir"]).arg(self.run_directory());
        command.args(arguments);
        Ok(command)
    }

    /// Runs `holdfastctl … --json`, which must succeed, and reads what it prints.
    ///
    /// # Errors
    ///
    /// When it fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, LabError> {
        let ended = self.ctl(&[arguments, &["--json"]].concat())?;
        if ended.code != Some(0) {
            let text = format!("holdfastctl {arguments:?} failed: {ended:?}");
            return Err(LabError::Unexpected(text));
        }
        serde_json::from_str(&ended.stdout).map_err(|error| {
            let text = format!("holdfastctl {arguments:?} printed no JSON ({error}): {ended:?}");
            LabError::Unexpected(text)
        })
    }
}
