//! When memory runs out: who is killed first, and whether that is what happened.
//!
//! The kernel kills the process with the highest score: its share of the memory in thousandths, plus
//! `oom_score_adj`. What the supervisor starts can be replaced and stands half the range above zero.
//! The supervisor takes itself out of the choice, if it may: that takes `CAP_SYS_RESOURCE`, before it
//! is given up. Otherwise it has what whoever started it gave it, and one case remains in which it goes:
//! between the end of a worker and the moment its pages are free, it is the only one in the cgroup.
//!
//! The maps are the kernel's, charged to the cgroup and freed by no kill.
#![expect(unsafe_code, reason = "the score is raised between fork and exec")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::mounts;
use crate::process::Ending;

/// Where a process's own adjustment is.
const OWN: &str = "/proc/self/oom_score_adj";
/// Never killed (`OOM_SCORE_ADJ_MIN` of `linux/oom.h`).
const NEVER: i32 = -1000;
/// How far a child's adjustment is above this process's, and above zero: half of the memory.
const STEP: i32 = 500;
/// The highest there is (`OOM_SCORE_ADJ_MAX`).
const HIGHEST: i32 = 1000;

/// Takes this process out of the choice. Who may not lower it keeps what it was started with.
pub fn stay() {
    let _not_permitted = std::fs::write(OWN, NEVER.to_string());
}

/// Makes what `command` starts more likely to be killed than this process, and than most.
pub fn offer_instead(command: &mut Command) {
    let own = std::fs::read_to_string(OWN).ok().and_then(|text| text.trim().parse().ok());
    let score = adjustment_of_a_child(own.unwrap_or(0)).to_string();
    let raise = move || {
        // A child that was not raised is still a child.
        if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlag::O_WRONLY, Mode::empty()) {
            let _raised = write(&file, score.as_bytes());
        }
        Ok(())
    };
    // SAFETY: the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(raise) };
}

fn adjustment_of_a_child(own: i32) -> i32 {
    (own.max(0) + STEP).min(HIGHEST)
}

/// Knows how many processes of this process's memory cgroup the kernel has killed for memory.
#[derive(Debug, Default)]
pub struct Witness {
    counter: Option<PathBuf>,
    killed: u64,
}

impl Witness {
    /// Of the cgroup this process is in now; one that cannot be found is never said to run out.
    #[must_use]
    pub fn of_this_process() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut witness = Self { counter: counter(&own, &mountinfo), killed: 0 };
        witness.look();
        witness
    }

    /// Whether a process was killed since the last look.
    pub fn look(&mut self) -> bool {
        let text = self.counter.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let killed = text.as_deref().and_then(killed).unwrap_or(self.killed);
        std::mem::replace(&mut self.killed, killed) < killed
    }

    /// Whether `ending`, of a child that was only just reaped, is the kernel's doing because memory
    /// was short. It counts before it kills.
    pub fn explains(&mut self, ending: Ending) -> bool {
        let is_short = self.look();
        ending == Ending::Killed(Signal::SIGKILL) && is_short
    }
}

/// The file that counts the kills in the cgroup that `own`, the text of `/proc/self/cgroup`, names.
fn counter(own: &str, mountinfo: &str) -> Option<PathBuf> {
    let entries = || own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let has_memory = |controllers: &str| controllers.split(',').any(|one| one == "memory");
    // Where both versions are mounted, the one that has the memory controller counts.
    let first = entries().find(|(controllers, _)| has_memory(controllers));
    if let Some((_, path)) = first {
        return Some(mounts::memory_cgroup(mountinfo, Path::new(path))?.join("memory.oom_control"));
    }
    let (_, path) = entries().find(|(controllers, _)| controllers.is_empty())?;
    Some(mounts::cgroup2_path(mountinfo, Path::new(path))?.join("memory.events"))
}

/// The count in `text`, a `memory.oom_control` or `memory.events`.
fn killed(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 30 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_counter_is_found_in_either_version() {
        let both = "9:memory:/a/b\n1:name=systemd:/x\n0::/c\n";
        let expected = "/sys/fs/cgroup/memory/a/b/memory.oom_control";
        assert_eq!(counter(both, BOTH), Some(expected.into()));
        let container = "30 24 0:28 /a /mnt ro - cgroup cgroup rw,cpu,memory\n";
        assert_eq!(counter(both, container), Some("/mnt/b/memory.oom_control".into()));
        let unified = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(counter("0::/c\n", unified), Some("/sys/fs/cgroup/c/memory.events".into()));
        assert_eq!(counter("0::/\n", unified), Some("/sys/fs/cgroup/memory.events".into()));
        for (own, mountinfo) in [("", BOTH), (both, ""), (both, unified), ("0::/c", "nonsense")] {
            assert_eq!(counter(own, mountinfo), None, "{own:?} {mountinfo:?}");
        }
    }

    #[test]
    fn a_child_is_always_above_this_process_unless_both_are_at_the_top() {
        let cases =
            [(NEVER, 500), (-1, 500), (0, 500), (300, 800), (999, 1000), (HIGHEST, HIGHEST)];
        assert_eq!(cases.map(|(own, _)| adjustment_of_a_child(own)), cases.map(|(_, child)| child));
    }

    #[test]
    fn a_kill_is_noticed_once_and_explains_only_a_kill() {
        let base = tempfile::tempdir().expect("a directory");
        let path = base.path().join("memory.events");
        let count = |n: u32| std::fs::write(&path, format!("max 7\noom 9\noom_kill {n}\n"));
        count(3).expect("written");
        let mut witness = Witness { counter: Some(path.clone()), killed: 0 };
        assert!(witness.look() && !witness.look());
        let killed = Ending::Killed(Signal::SIGKILL);
        assert!(!witness.explains(killed));
        count(4).expect("written");
        assert!(witness.explains(killed) && !witness.explains(killed));
        count(5).expect("written");
        assert!(!witness.explains(Ending::Exited(1)));
        std::fs::remove_file(&path).expect("removed");
        assert!(!witness.look(), "the cgroup is gone");
    }

    #[test]
    fn this_process_s_own_counter_is_read() {
        let own = Witness::of_this_process();
        let path = own.counter.expect("this test needs a memory cgroup, of either version");
        assert!(killed(&std::fs::read_to_string(path).expect("readable")).is_some());
    }
}
