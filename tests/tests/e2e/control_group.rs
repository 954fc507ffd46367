//! What members of the control group may ask, through the real `holdfastctl`.

use std::error::Error;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_lab::control::{ask, socket_path};
use holdfast_lab::inside::{Ended, INSTANCE};
use holdfast_lab::{Lab, LabError, binaries, isolated, render};
use holdfast_protocol::control::{Request, Response};
use holdfast_protocol::handover::ToChild;
use holdfast_protocol::wire::{MAX_PACKET_BYTES, decode, encode};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
};

use crate::scene::{FILE, Scene, WEB, assert_reached, web};

/// The control group, which nobody on the machine is in.
const GROUP: &str = "4242";
/// A user and a group of no importance: `nobody` and `nogroup` of every Debian.
const NOBODY: &str = "65534";
/// `EX_NOPERM`.
const NO_PERMISSION: i32 = 77;
/// `EX_CONFIG`.
const NOT_CONFIGURED: i32 = 78;

/// How many may be connected.
const SEATS: usize = 16;

const QUESTIONS: [&str; 5] = ["status", "services", "endpoints", "links", "version"];
const COMMANDS: [&str; 2] = ["reload", "uninstall"];

/// Users beside root, and `holdfastctl` where they may execute it.
struct Users<'a> {
    lab: &'a Lab,
    ctl: PathBuf,
}

impl<'a> Users<'a> {
    fn of(lab: &'a Lab) -> Result<Self, LabError> {
        // The build's own directory may be closed to other users.
        let ctl = lab.directory().join("holdfastctl");
        binaries::replace(&ctl, &binaries::find(binaries::CTL)?)?;
        Ok(Self { lab, ctl })
    }

    /// Runs `holdfastctl VERB` as nobody, with the groups that `options` of setpriv(1) give.
    fn run(&self, options: &[&str], verb: &str) -> Result<Ended, LabError> {
        let mut command = self.lab.beside("setpriv")?;
        command.args(["--reuid", NOBODY]).args(options).arg("--").arg(&self.ctl);
        command.args(["--instance", INSTANCE, "--run-dir"]).arg(self.lab.run_directory());
        Ended::run(command.arg(verb))
    }

    fn member(&self, verb: &str) -> Result<Ended, LabError> {
        self.run(&["--regid", NOBODY, "--groups", GROUP], verb)
    }

    fn stranger(&self, verb: &str) -> Result<Ended, LabError> {
        self.run(&["--regid", NOBODY, "--groups", "4241"], verb)
    }
}

fn start(lab: &Lab, group: &str) -> Result<Scene, LabError> {
    let red = holdfast_lab::Backend::tcp("red")?;
    let file = lab.write(FILE, render(&[web(&red)]))?;
    let supervisor = lab.supervisor(&file).with("--control-group", group).start()?;
    Ok(Scene { red, file, supervisor })
}

/// Mode and group.
fn access(path: &Path) -> std::io::Result<(u32, u32)> {
    let found = fs::metadata(path)?;
    Ok((found.mode() & 0o7777, found.gid()))
}

#[test]
fn members_may_ask_and_change_nothing() {
    isolated(|lab| {
        let mut scene = start(lab, GROUP)?;
        let (users, group) = (Users::of(lab)?, GROUP.parse()?);
        let socket = socket_path(lab);
        assert_eq!(access(&socket)?, (0o660, group));
        assert_eq!(access(&lab.run_directory().join(INSTANCE))?, (0o710, group), "no listing");
        assert_eq!(access(&lab.state_directory().join(INSTANCE))?, (0o700, 0));

        let before = scene.supervisor.status()?;
        // A new binary in the same process keeps to what the old one was told.
        for replacements in 0..2 {
            for verb in QUESTIONS {
                let ended = users.member(verb)?;
                assert_eq!(ended.code, Some(0), "{verb}: {ended:?}");
                let primary = users.run(&["--regid", GROUP, "--clear-groups"], verb)?;
                assert_eq!(primary.code, Some(0), "as the primary group, {verb}: {primary:?}");
            }
            assert!(users.member("services")?.stdout.contains("web"));
            for verb in COMMANDS {
                let ended = users.member(verb)?;
                assert_eq!(ended.code, Some(NO_PERMISSION), "{verb}: {ended:?}");
                for word in ["denied", "only root", GROUP] {
                    assert!(ended.stderr.contains(word), "{verb}, {word}: {}", ended.stderr);
                }
            }
            for verb in QUESTIONS.iter().chain(&COMMANDS) {
                let ended = users.stranger(verb)?;
                // `version` tells its own without a supervisor.
                assert!(
                    *verb == "version" || ended.code == Some(NO_PERMISSION),
                    "{verb}: {ended:?}"
                );
                assert!(!ended.stdout.contains("governed"), "{verb}: {ended:?}");
            }
            assert!(users.stranger("status")?.stderr.contains("permission denied"));

            let now = scene.supervisor.status()?;
            assert_eq!((now.epoch, now.worker.pid), (before.epoch, before.worker.pid));
            assert_eq!(now.replacements.count, replacements);
            scene.supervisor.signal(Signal::SIGUSR2)?;
            scene.supervisor.wait_until("the succession", |status| {
                status.replacements.count == replacements + 1
            })?;
        }
        assert_eq!(lab.ctl(&["reload"])?.code, Some(0), "root may do everything");
        assert_eq!(lab.ctl(&["uninstall"])?.code, Some(0));
        Ok(())
    });
}

#[test]
fn credentials_count_where_modes_were_opened_by_mistake() {
    isolated(|lab| {
        let scene = start(lab, GROUP)?;
        let users = Users::of(lab)?;
        for path in [lab.run_directory().join(INSTANCE), socket_path(lab)] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        for verb in ["status", "services", "reload", "uninstall"] {
            let ended = users.stranger(verb)?;
            assert_eq!(ended.code, Some(NO_PERMISSION), "{verb}: {ended:?}");
            for word in ["denied", "only root", GROUP] {
                assert!(ended.stderr.contains(word), "{verb}, {word}: {}", ended.stderr);
            }
        }
        assert_eq!(users.member("status")?.code, Some(0));
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn the_next_start_without_the_option_closes_what_the_former_one_opened() {
    isolated(|lab| {
        let Scene { red: _red, file, supervisor } = start(lab, GROUP)?;
        let users = Users::of(lab)?;
        let run = lab.run_directory().join(INSTANCE);
        let opened = access(&run)?;
        // Who is refused while another runs leaves that one's directory as it is.
        assert_eq!(lab.supervisor(&file).run()?.code, Some(75));
        assert_eq!(access(&run)?, opened);
        assert_eq!(users.member("status")?.code, Some(0));

        supervisor.end(Signal::SIGKILL)?;
        let supervisor = lab.supervisor(&file).start()?;
        assert_eq!(access(&run)?.0, 0o700);
        assert_eq!(access(&socket_path(lab))?.0, 0o600);
        assert_eq!(users.member("status")?.code, Some(NO_PERMISSION));
        supervisor.end(Signal::SIGTERM)?;

        let _supervisor = lab.supervisor(&file).with("--control-group", "users").start()?;
        let users_id = users_group()?;
        assert_eq!(access(&run)?, (0o710, users_id), "by name, and another group than before");
        assert_eq!(users.member("status")?.code, Some(NO_PERMISSION));
        let ended = users.run(&["--regid", NOBODY, "--groups", "users"], "status")?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        Ok(())
    });
}

/// The number of the group `users`, which every Debian has.
fn users_group() -> Result<u32, Box<dyn Error>> {
    let groups = fs::read_to_string("/etc/group")?;
    let entry = groups.lines().find(|line| line.starts_with("users:")).ok_or("no group `users`")?;
    Ok(entry.split(':').nth(2).ok_or("an entry has four fields")?.parse()?)
}

/// Connects to `path` and asks; the connection, which stays, if that was answered.
fn stay_connected(path: &Path) -> Result<Option<OwnedFd>, Box<dyn Error + Send + Sync>> {
    let own = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(own.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Who is turned away may see that before this is sent.
    let _sent = send(own.as_raw_fd(), &encode(&Request::Status)?, MsgFlags::MSG_NOSIGNAL);
    let mut answer = vec![0; MAX_PACKET_BYTES];
    let length = recv(own.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap_or(0);
    let answered = matches!(decode(&answer[..length]), Ok(Response::Status(_)));
    Ok(answered.then_some(own))
}

#[test]
fn members_cannot_take_every_seat() {
    isolated(|lab| {
        let _scene = start(lab, GROUP)?;
        let (path, socket) = (socket_path(lab), socket_path(lab));
        // Credentials belong to threads: this one becomes a member.
        let members = std::thread::spawn(move || -> Result<_, Box<dyn Error + Send + Sync>> {
            let group: u32 = GROUP.parse()?;
            // SAFETY: the kernel reads one number; the C library's wrappers would change all threads.
            let changed = unsafe {
                libc::syscall(libc::SYS_setgroups, 1, &raw const group) == 0
                    && libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) == 0
            };
            assert!(changed, "root may become anybody");
            let attempts = (0..SEATS).map(|_| stay_connected(&path));
            Ok(attempts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect::<Vec<_>>())
        });
        let members = members.join().expect("no panic").map_err(|error| error.to_string())?;
        assert!((1..SEATS).contains(&members.len()), "{} of {SEATS}", members.len());
        ask(&socket, &Request::Status)?;
        drop(members);
        Ok(())
    });
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    isolated(|lab| {
        let file = lab.write(FILE, "services: []\n")?;
        let ended = lab.supervisor(&file).with("--control-group", "nosuchgroup").run()?;
        assert_eq!(ended.code, Some(NOT_CONFIGURED), "{ended:?}");
        for word in ["nosuchgroup", "groupadd", "/etc/group"] {
            assert!(ended.stderr.contains(word), "{ended:?}");
        }
        Ok(())
    });
}

#[test]
fn whatever_a_member_asks_the_worker_it_goes_on() {
    isolated(|lab| {
        let mut scene = start(lab, GROUP)?;
        let before = scene.supervisor.status()?;
        let leave = encode(&ToChild::Leave)?;
        for body in [Vec::new(), vec![0xff; 4096], leave] {
            let answer = ask(&socket_path(lab), &Request::Worker(body))?;
            assert!(matches!(answer, Response::Worker(_)), "{answer:?}");
        }
        let after = scene.supervisor.wait_for_grant()?;
        assert_eq!((after.epoch, after.worker.pid), (before.epoch, before.worker.pid));
        assert_reached(&holdfast_lab::Target::tcp(WEB, &["red"]));
        Ok(())
    });
}
