//! What the attempts are made on: files, sockets, a process and a cgroup of this test's own.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use holdfast_lab::cgroup;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Exit status of an attempt that was stopped.
const STOPPED: i32 = 1;

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Escaped,
    /// With this error.
    Stopped(String),
    /// By the kernel, which has not done it.
    Killed,
}

/// One attempt's surroundings, fresh for each, since those that succeed change them.
pub struct Scene {
    directory: TempDir,
    config: PathBuf,
    victim: Child,
    cgroup: PathBuf,
    tcp: TcpListener,
    abstract_name: String,
    _unix: [UnixListener; 2],
}

impl Scene {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Open to all, so that only the fences are in the way.
        let everybody = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        everybody(directory.path(), 0o777);
        let config = directory.path().join("holdfast.yaml");
        fs::write(&config, "services: []\n").unwrap();
        everybody(&config, 0o666);
        let control = directory.path().join("control.sock");
        let listener = UnixListener::bind(&control).unwrap();
        everybody(&control, 0o777);
        let name = directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let abstract_listener = UnixListener::bind_addr(&address).unwrap();
        let cgroup = cgroup::mount_point().unwrap().join(format!("holdfast-escape-{name}"));
        fs::create_dir(&cgroup).unwrap();
        Self {
            directory,
            config,
            victim: victim(),
            cgroup,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            abstract_name: name,
            _unix: [listener, abstract_listener],
        }
    }

    /// Makes the attempt behind `fences`.
    pub fn attempt(&self, fences: &str, attempt: &str) -> Outcome {
        let output = self.run(fences, attempt);
        let said = String::from_utf8(output.stdout).unwrap();
        match output.status.code() {
            Some(0) => Outcome::Escaped,
            Some(STOPPED) => {
                let number: i32 = said.trim().parse().unwrap();
                Outcome::Stopped(std::io::Error::from_raw_os_error(number).to_string())
            }
            None if output.status.signal() == Some(libc::SIGSYS) => Outcome::Killed,
            _ => {
                panic!("{attempt}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))
            }
        }
    }

    /// Runs the attempt behind `fences`, however it ends.
    pub fn run(&self, fences: &str, attempt: &str) -> Output {
        let mut command = Command::new(escape());
        command.arg(fences).arg(&self.config).arg(attempt).arg(self.place(attempt));
        // SAFETY: unshare(2) and mount(2) are async-signal-safe.
        unsafe { command.pre_exec(leave_the_mounts_alone) };
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn place(&self, attempt: &str) -> String {
        let path = |path: &Path| path.display().to_string();
        match attempt {
            "detach-link" => path(&self.cgroup),
            "overwrite" | "remove" => path(&self.config),
            "create-file" | "mount" => path(self.directory.path()),
            "connect-unix" => path(&self.directory.path().join("control.sock")),
            "connect-abstract" => self.abstract_name.clone(),
            "connect-tcp" | "connect-as-checks-do" => {
                self.tcp.local_addr().unwrap().port().to_string()
            }
            _ => self.victim.id().to_string(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ended = self.victim.kill();
        let _reaped = self.victim.wait();
        // Nothing is in it: the attempt has ended, and its link with it.
        let _removed = fs::remove_dir(&self.cgroup);
    }
}

/// What an attempt mounts is gone with it.
fn leave_the_mounts_alone() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
}

/// A process of the user the worker becomes.
fn victim() -> Child {
    let mut command = Command::new(escape());
    command.arg("victim").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut victim = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(victim.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "nobody\n", "tests need root");
    victim
}

/// Where cargo puts the example, beside the directory this test is in.
fn escape() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.ancestors().nth(2).unwrap().join("examples/escape");
    assert!(path.is_file(), "{} is missing: run `cargo test -p holdfast-worker`", path.display());
    path
}
