//! The outside of a patch: makes it, runs a process in it, and always cleans up.
//!
//! The process inside may abort, hang or be killed. Its cgroup is the handle on everything it
//! started: the cgroup is killed as a whole, which no process inside can escape. What it mounted and
//! pinned goes with its mount namespace.
//!
//! Should the outside process itself be killed, the kernel kills the inside (`PR_SET_PDEATHSIG`), and
//! the next patch removes the empty directories that are left.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;

use crate::cgroup::{self, Cgroup};
use crate::error::LabError;
use crate::memory;
use crate::process::Process;

/// What names of our cgroups and directories begin with.
const PREFIX: &str = "holdfast-lab-";

/// Environment variable that tells the process inside where its directory is.
pub(crate) const DIRECTORY_VARIABLE: &str = "HOLDFAST_LAB_DIR";
/// Environment variable that tells the process inside where its cgroup is.
pub(crate) const CGROUP_VARIABLE: &str = "HOLDFAST_LAB_CGROUP";

/// The cgroup whose processes are governed.
pub(crate) const GOVERNED: &str = "governed";
/// The cgroup the supervisor and its children run in.
pub(crate) const CONTROL: &str = "control";

/// The worker runs as nobody and has to reach its configuration in the patch's directory.
const DIRECTORY_MODE: u32 = 0o755;

/// A cgroup and a directory, removed when dropped.
#[derive(Debug)]
pub struct Patch {
    cgroup: Cgroup,
    directory: PathBuf,
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// By itself, or by a signal it got.
    Exited(ExitStatus),
    /// It was still running at the deadline.
    Overdue,
    /// The caller's descriptor became readable: somebody wants the run to stop.
    Interrupted,
}

impl Patch {
    /// Makes a patch, and removes what killed ones have left.
    ///
    /// # Errors
    ///
    /// [`LabError::NotRoot`], [`LabError::NoCgroup2`], or what the kernel refuses.
    pub fn new() -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let mount = cgroup::mount_point()?;
        remove_abandoned(&mount);
        let name = unused_name();
        let patch = Self {
            cgroup: Cgroup::create(&mount.join(&name))?,
            directory: std::env::temp_dir().join(&name),
        };
        patch.make_directories()?;
        Ok(patch)
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs `command` inside until it ends, `deadline` has passed or `interrupt` becomes readable,
    /// and kills whatever is left inside.
    ///
    /// # Errors
    ///
    /// When the command cannot be started or waited for.
    pub fn run(
        &self,
        mut command: Command,
        deadline: Duration,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<End, LabError> {
        command.env(DIRECTORY_VARIABLE, &self.directory).env(CGROUP_VARIABLE, self.cgroup.path());
        enter_on_spawn(&mut command, &self.cgroup.path().join(GOVERNED))?;
        let mut child = command.spawn().map_err(LabError::system("start a process inside"))?;
        let end = wait(&mut child, deadline, interrupt);
        // The child is reaped on every path: kill(2) on it is a no-op once it has been waited for.
        child.kill().map_err(LabError::system("kill the process inside"))?;
        child.wait().map_err(LabError::system("wait for the process inside"))?;
        end
    }

    /// Kills what runs inside and removes the patch.
    ///
    /// # Errors
    ///
    /// When something is left; the rest is removed all the same.
    pub fn remove(&self) -> Result<(), LabError> {
        let cgroup = self.cgroup.remove();
        memory::remove_left(&self.directory);
        let directory = remove_directory(&self.directory);
        cgroup.and(directory)
    }

    fn make_directories(&self) -> Result<(), LabError> {
        for name in [GOVERNED, CONTROL] {
            let path = self.cgroup.path().join(name);
            fs::create_dir(&path).map_err(LabError::file("create the cgroup", &path))?;
        }
        let path = &self.directory;
        fs::create_dir(path).map_err(LabError::file("create", path))?;
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(LabError::file("open to all", path))
    }
}

impl Drop for Patch {
    fn drop(&mut self) {
        if self.cgroup.path().exists()
            && let Err(error) = self.remove()
        {
            eprintln!("holdfast-lab: {error}");
        }
    }
}

/// A name nobody uses: this process's id, and how many it has made.
fn unused_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let count = MADE.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// Removes the patches of processes that were killed. Best effort: a patch that resists is left to
/// be found by the next one.
fn remove_abandoned(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(PREFIX.as_bytes())
            && let Some(cgroup) = Cgroup::abandoned(&entry.path())
            && cgroup.end_processes().is_ok()
        {
            let directory = std::env::temp_dir().join(name);
            memory::remove_left(&directory);
            let _ = remove_directory(&directory);
            // Last: who was just making it makes everything anew once it is gone.
            let _ = cgroup.remove();
        }
    }
}

fn remove_directory(path: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        answer => answer.map_err(LabError::file("remove", path)),
    }
}

/// Makes `command` start in `cgroup` and in namespaces of its own, so that no thread of it was ever
/// anywhere else.
fn enter_on_spawn(command: &mut Command, cgroup: &Path) -> Result<(), LabError> {
    let processes = process_list(cgroup)?;
    // SAFETY: `enter` makes only system calls, on memory that was allocated before the fork.
    unsafe { command.pre_exec(move || enter(&processes)) };
    Ok(())
}

/// The path of a cgroup's list of processes, as the kernel takes it.
pub(crate) fn process_list(cgroup: &Path) -> Result<CString, LabError> {
    let path = cgroup.join(cgroup::PROCESSES);
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| LabError::file("use", &path)(error.into()))
}

fn enter(processes: &CString) -> io::Result<()> {
    join(processes)?;
    die_with_parent()?;
    // A caller that takes its signals from a descriptor has them blocked; its child must not.
    SigSet::all().thread_unblock()?;
    Ok(unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?)
}

/// A command that runs in `cgroup`, and is killed when the thread that starts it ends.
///
/// # Errors
///
/// When the cgroup's path cannot be used.
pub fn in_cgroup(program: impl AsRef<std::ffi::OsStr>, cgroup: &Path) -> Result<Command, LabError> {
    let processes = process_list(cgroup)?;
    let mut command = Command::new(program);
    // SAFETY: both make only system calls, on memory that was allocated before the fork.
    unsafe {
        command.pre_exec(move || {
            join(&processes)?;
            die_with_parent()
        })
    };
    Ok(command)
}

/// Moves the calling process to a cgroup. Between fork and exec: it allocates nothing.
pub(crate) fn join(processes: &CString) -> io::Result<()> {
    // SAFETY: the path ends with a zero byte and outlives the call.
    let file = unsafe { libc::open(processes.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened above; 0 stands for the writer itself. It is closed by the
    // exec that follows.
    match unsafe { libc::write(file, c"0".as_ptr().cast(), 1) } {
        1 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the kernel kill the calling process when the thread that started it ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes an integer and no address.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn wait(
    child: &mut Child,
    deadline: Duration,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<End, LabError> {
    let process =
        Process::open(child.id()).map_err(LabError::system("watch the process inside"))?;
    let until = Instant::now() + deadline;
    let mut watched = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    watched.extend(interrupt.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)));
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Err(nix::Error::EINTR) => continue,
            Err(errno) => return Err(LabError::system("wait for the process inside")(errno)),
            Ok(0) => return Ok(End::Overdue),
            Ok(_) if watched[0].any() == Some(true) => break,
            Ok(_) => return Ok(End::Interrupted),
        }
    }
    child.wait().map(End::Exited).map_err(LabError::system("wait for the process inside"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_clears_leftovers_away_leaves_what_is_being_made() {
        const MAKERS: u32 = 4;
        const PATCHES: u32 = 150;

        std::thread::scope(|scope| {
            for _ in 0..MAKERS {
                scope.spawn(|| {
                    for _ in 0..PATCHES {
                        let patch = Patch::new().expect("it is made");
                        let file = patch.directory().join("file");
                        fs::write(&file, "").expect("its directory is there");
                        std::thread::yield_now();
                        assert!(file.exists(), "its directory stays");
                        patch.remove().expect("it is removed");
                    }
                });
            }
        });
    }
}
