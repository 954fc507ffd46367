//! `deploy/holdfast.service` under a systemd that is process 1 of a container, on this machine's
//! `/usr` with the image's binaries added.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use holdfast_lab::inside::{Ended, INSTANCE};
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Census, Lab, LabError, Target, TestResult, eventually, isolated};
use holdfast_tests::scene::{WEB, assert_reached, wait_until_reached, wait_until_ungoverned};
use serde_json::{Value, json};

use crate::bundle::{CONFIGURATION, bind, cgroup_path};
use crate::container::{Container, unused_name};
use crate::dockerfile::{Dockerfile, built, context};
use crate::lives::configure;

const UNIT: &str = "holdfast.service";

/// What a person who governs one cgroup puts beside the unit, with the lab's instance. The journal
/// is not there to be read.
const DROP_IN: &str = "\
[Service]
ExecStart=
ExecStart=/usr/bin/holdfast run --config /etc/holdfast --cgroup /governed --instance lab
StandardOutput=append:/log
StandardError=append:/log
";

/// What a container that boots systemd is given.
const CAPABILITIES: [&str; 16] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];

/// A container that boots systemd and starts the unit.
struct Machine<'a> {
    container: Container<'a>,
    root: PathBuf,
}

impl<'a> Machine<'a> {
    fn boot(lab: &'a Lab) -> Result<Self, Box<dyn Error>> {
        let name = unused_name();
        let bundle = lab.directory().join(format!("machine-{name}"));
        let root = bundle.join("rootfs");
        lay_out(&bundle, &root)?;
        let config = serde_json::to_vec_pretty(&config(lab, &name, &bundle)?)?;
        fs::write(bundle.join("config.json"), config)?;
        let container = Container::run(lab, name, &bundle, &bundle.join("none"))?;
        let machine = Self { container, root };
        machine.wait_until("a granted worker", |status| status["worker"]["state"] == "granted")?;
        Ok(machine)
    }

    fn run(&self, command: &[&str]) -> Result<Ended, LabError> {
        self.container.execute(command)
    }

    /// Runs `systemctl`, which must succeed; what it prints.
    fn systemctl(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let ended = self.run(&[&["systemctl"], arguments].concat())?;
        match ended.code {
            Some(0) => Ok(ended.stdout.trim().to_owned()),
            _ => Err(format!("systemctl {arguments:?}: {ended:?}").into()),
        }
    }

    fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, LabError> {
        eventually(what, || {
            let ended = self.run(&["holdfastctl", "--instance", INSTANCE, "status", "--json"]);
            let ended = ended.map_err(|error| error.to_string())?;
            let said = || format!("{ended:?}\n{}\n{}", self.container.log(), self.log());
            let status: Value = serde_json::from_str(&ended.stdout).map_err(|_| said())?;
            if wanted(&status) { Ok(status) } else { Err(status.to_string()) }
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }
}

/// What is not mounted: the configuration of a small machine, and the unit.
fn lay_out(bundle: &Path, root: &Path) -> TestResult {
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(units.join(format!("{UNIT}.d")))?;
    fs::copy(context().join("deploy").join(UNIT), units.join(UNIT))?;
    fs::write(units.join(format!("{UNIT}.d/lab.conf")), DROP_IN)?;
    fs::write(root.join("etc/machine-id"), "")?;
    for file in ["etc/passwd", "etc/group"] {
        fs::copy(Path::new("/").join(file), root.join(file))?;
    }
    for directory in ["tmp", "var/tmp", "var/lib", "root"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.join(name))?;
    }
    Dockerfile::of_repository()?.lay_out(&bundle.join("image"), &built()?)
}

fn config(lab: &Lab, name: &str, bundle: &Path) -> Result<Value, Box<dyn Error>> {
    let sets = ["bounding", "permitted", "effective"];
    let capabilities: serde_json::Map<_, _> =
        sets.map(|set| (set.to_owned(), json!(CAPABILITIES))).into_iter().collect();
    let usr = format!("lowerdir={}:/usr", bundle.join("image/usr").display());
    let mount = |kind: &str, destination: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": kind, "options": options });
    let namespaces = ["pid", "mount", "network", "cgroup", "ipc", "uts"];
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/lib/systemd/systemd", "--system", format!("--unit={UNIT}")],
            "env": ["container=runc", "PATH=/usr/sbin:/usr/bin", "SYSTEMD_LOG_TARGET=console"],
            "cwd": "/",
            "capabilities": capabilities,
        },
        "root": { "path": "rootfs" },
        "mounts": [
            mount("proc", "/proc", &[]),
            mount("tmpfs", "/dev", &["mode=755"]),
            mount("tmpfs", "/run", &["mode=755"]),
            mount("sysfs", "/sys", &["ro"]),
            mount("cgroup", "/sys/fs/cgroup", &["rw"]),
            mount("overlay", "/usr", &[&usr]),
            bind(&lab.bpffs(), "/sys/fs/bpf", "rw"),
            bind(&lab.state_directory(), "/var/lib/holdfast", "rw"),
            bind(&lab.directory().join(CONFIGURATION), "/etc/holdfast", "ro"),
            bind(&governed(lab)?, "/governed", "ro"),
        ],
        "linux": {
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "cgroupsPath": cgroup_path(lab, name)?,
        },
    }))
}

/// The governed cgroup, below the place where runc sees the cgroups.
fn governed(lab: &Lab) -> Result<PathBuf, Box<dyn Error>> {
    let name = cgroup_path(lab, "governed")?;
    Ok(Path::new("/sys/fs/cgroup").join(name.trim_start_matches('/')))
}

#[test]
fn the_unit_is_sound_and_every_way_to_stop_it_keeps_governance() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        configure(lab, &[&red])?;
        fs::create_dir_all(lab.state_directory())?;
        let before = Census::take(lab, &Census::default())?;
        let machine = Machine::boot(lab)?;
        let target = Target::tcp(WEB, &["red"]);
        wait_until_reached(&target)?;
        let verified = machine.run(&["systemd-analyze", "verify", UNIT])?;
        assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified:?}");

        let first = machine.wait_until("links", |status| status["links"][3]["ok"] == true)?;
        machine.systemctl(&["reload", UNIT])?;
        let reloaded = machine.wait_until("another worker", |status| {
            status["worker"]["state"] == "granted"
                && status["worker"]["pid"] != first["worker"]["pid"]
        })?;
        assert_eq!(reloaded["supervisor"]["pid"], first["supervisor"]["pid"]);

        machine.systemctl(&["kill", "--kill-whom=main", "--signal=USR2", UNIT])?;
        let replaced =
            machine.wait_until("the succession", |status| status["replacements"]["count"] == 1)?;
        assert_eq!(replaced["supervisor"]["pid"], first["supervisor"]["pid"]);

        machine.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", UNIT])?;
        let killed = machine.wait_until("another supervisor", |status| {
            status["worker"]["state"] == "granted"
                && status["supervisor"]["pid"] != first["supervisor"]["pid"]
        })?;
        assert_eq!(killed["links"], first["links"], "adopted, not made again");

        machine.systemctl(&["stop", UNIT])?;
        assert_eq!(machine.systemctl(&["show", "--property=Result", UNIT])?, "Result=success");
        assert_reached(&target);
        machine.systemctl(&["start", UNIT])?;
        let again =
            machine.wait_until("a worker", |status| status["worker"]["state"] == "granted")?;
        assert_eq!(again["links"], first["links"], "adopted, not made again");

        let during = Census::take(lab, &before)?;
        machine.systemctl(&["stop", UNIT])?;
        let uninstall = ["holdfast", "uninstall", "--instance", INSTANCE, "--cgroup", "/governed"];
        let ended = machine.run(&uninstall)?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        wait_until_ungoverned(&target)?;
        let left = eventually("the objects to be gone", || {
            let now = Census::take(lab, &during).map_err(|error| error.to_string())?;
            holds(now.objects == before.objects, || format!("{now:?}")).map(|()| now)
        })?;
        assert_eq!(left.files, before.files);
        Ok(())
    });
}
