//! The inside of a patch: its directories, and commands that run in it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::mount::{MsFlags, mount};

use crate::binaries;
use crate::error::LabError;
use crate::patch::{CGROUP_VARIABLE, CONTROL, DIRECTORY_VARIABLE, GOVERNED, in_cgroup};
use crate::supervisor::Launch;

/// Name of the instance in every lab: each has a bpffs, a state and a run directory of its own.
pub const INSTANCE: &str = "lab";

/// Configuration files must be readable for the worker's user.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// What a process inside a patch has to itself.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    cgroup: PathBuf,
}

/// What a command that has ended left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Lab {
    /// The patch this process runs in, made ready: a private bpffs is mounted and the loopback
    /// interface is up. `None` in a process that was not started by [`Patch::run`].
    ///
    /// [`Patch::run`]: crate::patch::Patch::run
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn here() -> Result<Option<Self>, LabError> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let (Some(directory), Some(cgroup)) =
            (variable(DIRECTORY_VARIABLE), variable(CGROUP_VARIABLE))
        else {
            return Ok(None);
        };
        let lab = Self { directory, cgroup };
        lab.make_ready()?;
        Ok(Some(lab))
    }

    /// A directory of its own, readable for every user.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroup to govern. This process is in it, and so is what it starts.
    #[must_use]
    pub fn governed(&self) -> PathBuf {
        self.cgroup.join(GOVERNED)
    }

    /// The cgroup the supervisor and its children run in.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.cgroup.join(CONTROL)
    }

    /// Where the instance pins.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// Where the instance keeps what survives a reboot.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where the instance listens.
    #[must_use]
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Puts the state directory on a file system of its own that has room for `bytes`. To be called
    /// before anything is in it.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn limit_state(&self, bytes: u64) -> Result<(), LabError> {
        let (path, options) = (self.state_directory(), format!("size={bytes},mode=755"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| LabError::file("mount a small tmpfs at", &path)(errno.into()))
    }

    /// Writes the file `name` in the lab's directory as an editor does: aside, then renamed over.
    /// Directories in `name` are made.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, LabError> {
        let path = self.directory.join(name);
        let parent = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).map_err(LabError::file("create", parent))?;
        fs::set_permissions(parent, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(LabError::file("open to all", parent))?;
        let aside = path.with_extension("aside");
        fs::write(&aside, text).map_err(LabError::file("write", &aside))?;
        fs::set_permissions(&aside, Permissions::from_mode(FILE_MODE))
            .map_err(LabError::file("open to all", &aside))?;
        fs::rename(&aside, &path).map_err(LabError::file("replace", &path))?;
        Ok(path)
    }

    /// `holdfast run` on this lab and the configuration at `path`, to be started.
    #[must_use]
    pub fn supervisor(&self, path: &Path) -> Launch<'_> {
        Launch::new(self, path)
    }

    /// A command that runs beside the supervisor, outside the governed cgroup, and is killed when
    /// this thread ends.
    ///
    /// # Errors
    ///
    /// When the cgroup's path cannot be used.
    pub fn beside(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        in_cgroup(program, &self.control())
    }

    /// Runs `holdfast uninstall` on this lab to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be run; that it fails is for the caller to judge.
    pub fn uninstall(&self) -> Result<Ended, LabError> {
        let mut command = self.beside(binaries::find(binaries::SUPERVISOR)?)?;
        command.arg("uninstall").args(self.instance_arguments());
        Ended::run(&mut command)
    }

    /// `--instance`, `--cgroup`, … of this lab, for `holdfast run` and `holdfast uninstall`.
    #[must_use]
    pub fn instance_arguments(&self) -> Vec<std::ffi::OsString> {
        vec![
            "--instance".into(),
            INSTANCE.into(),
            "--cgroup".into(),
            self.governed().into(),
            "--bpffs".into(),
            self.bpffs().into(),
            "--state-dir".into(),
            self.state_directory().into(),
            "--run-dir".into(),
            self.run_directory().into(),
        ]
    }

    fn make_ready(&self) -> Result<(), LabError> {
        let nothing = None::<&str>;
        // Mounts made here must not reach the namespace this one was copied from.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing)
            .map_err(LabError::system("make this mount namespace private"))?;
        let bpffs = self.bpffs();
        for path in [&bpffs, &self.state_directory(), &self.run_directory()] {
            fs::create_dir(path).map_err(LabError::file("create", path))?;
        }
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), nothing)
            .map_err(|errno| LabError::file("mount a bpffs at", &bpffs)(errno.into()))?;
        raise_loopback().map_err(LabError::system("bring the loopback interface up"))
    }
}

impl Ended {
    /// Runs `command` to its end and collects what it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run(command: &mut Command) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command.output().map_err(LabError::system(format!("run {program}")))?;
        Ok(output.into())
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Sets the loopback interface up: a new network namespace has it down.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain integers and bytes, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    interface_flags(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags =
        flags | i16::try_from(libc::IFF_UP).expect("IFF_UP is the first bit");
    interface_flags(&socket, libc::SIOCSIFFLAGS, &mut request)
}

fn interface_flags(
    socket: &std::net::UdpSocket,
    command: libc::Ioctl,
    request: &mut libc::ifreq,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: both commands take a pointer to an ifreq, which is live and exclusive here.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
