//! An OCI bundle: the image laid out, and a `config.json` as a container engine would write it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::{Lab, LabError, cgroup};
use serde_json::{Value, json};

use crate::dockerfile::{self, Dockerfile};

/// The directory of the lab that is mounted at the configuration's place.
pub const CONFIGURATION: &str = "config";

/// Where things are inside; runc, too, sees the cgroups there.
const GOVERNED_MOUNT: &str = "/sys/fs/cgroup";
const BPFFS: &str = "/bpf";
const RUN: &str = "/run/holdfast";
const STATE: &str = "/var/lib/holdfast";

/// What the process of one container is, and what it sees.
pub struct Bundle<'a> {
    lab: &'a Lab,
    arguments: Vec<String>,
    capabilities: Vec<String>,
    run: PathBuf,
    mounts: Vec<Value>,
}

impl<'a> Bundle<'a> {
    /// The image's own command on the lab, with a fresh run directory called `run`.
    pub fn new(lab: &'a Lab, run: &str) -> Result<Self, Box<dyn Error>> {
        let (entrypoint, command) = Dockerfile::of_repository()?.process()?;
        let mut bundle = Self {
            lab,
            arguments: [entrypoint, command].concat(),
            capabilities: documented_capabilities()?,
            run: lab.run_directory().join(run),
            mounts: Vec::new(),
        };
        bundle.mounts = bundle.own_mounts()?;
        bundle.arguments.extend(["--cgroup".into(), governed_inside(lab)?]);
        bundle.arguments.extend(["--instance", INSTANCE].map(Into::into));
        Ok(bundle)
    }

    /// Uninstalling instead.
    pub fn uninstalling(mut self) -> Result<Self, Box<dyn Error>> {
        let (mut arguments, _) = Dockerfile::of_repository()?.process()?;
        arguments.extend(["uninstall", "--bpffs", BPFFS].map(Into::into));
        arguments.extend(["--cgroup".into(), governed_inside(self.lab)?]);
        arguments.extend(["--instance", INSTANCE].map(Into::into));
        self.arguments = arguments;
        Ok(self)
    }

    /// With another argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With these capabilities only.
    pub fn capabilities(mut self, capabilities: Vec<String>) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Without what is mounted at `destination`.
    pub fn without_mount(mut self, destination: &str) -> Self {
        self.mounts.retain(|mount| mount["destination"] != destination);
        self
    }

    /// With the host's programs, which the image has none of.
    pub fn with_programs(mut self) -> Self {
        for path in ["/bin", "/lib", "/lib64", "/usr/lib", "/usr/local"] {
            if Path::new(path).exists() {
                self.mounts.push(bind(Path::new(path), path, "ro"));
            }
        }
        self.mounts.push(bind(self.lab.directory(), "/lab", "rw"));
        self
    }

    /// What of the host is mounted, and whether read-only.
    pub fn binds(&self) -> BTreeSet<(String, bool)> {
        let binds = self.mounts.iter().filter(|mount| mount["type"] == "bind");
        let read_only = |mount: &Value| {
            mount["options"].as_array().is_some_and(|options| options.contains(&json!("ro")))
        };
        let path = |mount: &Value| mount["destination"].as_str().unwrap_or_default().to_owned();
        binds.map(|mount| (path(mount), read_only(mount))).collect()
    }

    /// The run directory, which goes with the container as a tmpfs of its own would.
    pub fn run_directory(&self) -> &Path {
        &self.run
    }

    /// Lays the bundle out as `name`.
    pub fn write(&self, name: &str) -> Result<PathBuf, Box<dyn Error>> {
        let bundle = self.lab.directory().join(format!("bundle-{name}"));
        let root = bundle.join("rootfs");
        fs::create_dir_all(&root).map_err(LabError::file("create", &root))?;
        Dockerfile::of_repository()?.lay_out(&root, &dockerfile::built()?)?;
        let sources = [&self.run, &self.lab.state_directory(), &self.configuration()];
        for directory in sources {
            fs::create_dir_all(directory).map_err(LabError::file("create", directory))?;
        }
        let config = serde_json::to_vec_pretty(&self.config(name)?)?;
        fs::write(bundle.join("config.json"), config)?;
        Ok(bundle)
    }

    fn configuration(&self) -> PathBuf {
        self.lab.directory().join(CONFIGURATION)
    }

    fn own_mounts(&self) -> Result<Vec<Value>, LabError> {
        Ok(vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", "noexec", "mode=755", "size=64k"] }),
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"] }),
            bind(Path::new(GOVERNED_MOUNT), GOVERNED_MOUNT, "ro"),
            bind(&self.lab.bpffs(), BPFFS, "rw"),
            bind(&self.configuration(), "/etc/holdfast", "ro"),
            bind(&self.lab.state_directory(), STATE, "rw"),
            bind(&self.run, RUN, "rw"),
        ])
    }

    fn config(&self, name: &str) -> Result<Value, Box<dyn Error>> {
        let environment = Dockerfile::of_repository()?;
        let sets = ["bounding", "permitted", "effective"];
        let capabilities: serde_json::Map<_, _> =
            sets.map(|set| (set.to_owned(), json!(self.capabilities))).into_iter().collect();
        let namespaces = ["pid", "mount", "network", "cgroup", "ipc", "uts"];
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": self.arguments,
                "env": environment.last_stage("ENV"),
                "cwd": "/",
                "capabilities": capabilities,
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": self.mounts,
            "linux": {
                "namespaces": namespaces.map(|kind| json!({ "type": kind })),
                "cgroupsPath": cgroup_path(self.lab, name)?,
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }))
    }
}

/// The capabilities that docs/security.md lists, in alphabetical order.
pub fn documented_capabilities() -> Result<Vec<String>, Box<dyn Error>> {
    let path = dockerfile::context().join("docs/security.md");
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    let (_, section) = text.split_once("## The supervisor's capabilities\n").ok_or("no section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut names: Vec<_> = rows.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    Ok(names)
}

/// The cgroup of the container `name` as runc is told it: inside the lab's, which is killed and
/// removed as a whole whatever becomes of the test.
pub fn cgroup_path(lab: &Lab, name: &str) -> Result<String, Box<dyn Error>> {
    let own = lab.governed();
    let own = own.parent().ok_or("the lab has a cgroup")?.strip_prefix(cgroup::mount_point()?)?;
    Ok(format!("/{}/{name}", own.display()))
}

/// The governed cgroup as a container sees it.
fn governed_inside(lab: &Lab) -> Result<String, Box<dyn Error>> {
    let below = lab.governed().strip_prefix(cgroup::mount_point()?)?.to_owned();
    Ok(Path::new(GOVERNED_MOUNT).join(below).display().to_string())
}

/// A bind mount.
pub fn bind(source: &Path, destination: &str, mode: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source,
            "options": ["bind", "nosuid", "nodev", mode] })
}
