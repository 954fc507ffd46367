//! `deploy/kubernetes/daemonset.yaml`: against the types of the API, and against what the containers
//! of these tests are given.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;

use holdfast_lab::inside::Ended;
use holdfast_lab::{Lab, LabError, TestResult, binaries, isolated};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::bundle::{Bundle, documented_capabilities};
use crate::dockerfile::{Dockerfile, context};
use crate::yaml;

struct Manifest {
    configuration: ConfigMap,
    daemon_set: DaemonSet,
}

/// Reads `value` as a `T`. What the API does not know vanishes on the way there and back.
fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, Box<dyn Error>> {
    let typed: T = serde_json::from_value(value.clone())?;
    assert_eq!(&serde_json::to_value(&typed)?, value, "the API knows less");
    Ok(typed)
}

fn manifest() -> Result<Manifest, Box<dyn Error>> {
    let path = context().join("deploy/kubernetes/daemonset.yaml");
    let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
    let documents = yaml::documents(&text)?;
    let [namespace, configuration, daemon_set] = &documents[..] else {
        return Err(format!("{} documents", documents.len()).into());
    };
    let _: Namespace = typed(namespace)?;
    for part in [configuration, daemon_set] {
        assert_eq!(part["metadata"]["namespace"], namespace["metadata"]["name"]);
    }
    Ok(Manifest { configuration: typed(configuration)?, daemon_set: typed(daemon_set)? })
}

impl Manifest {
    fn container(&self) -> &Container {
        let pod = self.daemon_set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        &pod.expect("a DaemonSet has pods").containers[0]
    }
}

#[test]
fn the_manifest_is_what_the_api_takes_and_fits_together() -> TestResult {
    let manifest = manifest()?;
    let spec = manifest.daemon_set.spec.as_ref().ok_or("no spec")?;
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    assert_eq!(spec.selector.match_labels.as_ref(), labels, "the selector finds the pods");
    let pod = spec.template.spec.as_ref().ok_or("no pod")?;
    let volumes: BTreeSet<_> = pod.volumes.iter().flatten().map(|volume| &volume.name).collect();
    let mounts = manifest.container().volume_mounts.iter().flatten();
    assert_eq!(mounts.map(|mount| &mount.name).collect::<BTreeSet<_>>(), volumes);
    let maps = pod.volumes.iter().flatten().filter_map(|volume| volume.config_map.as_ref());
    let names: Vec<_> = maps.map(|map| map.name.as_str()).collect();
    assert_eq!(names, [manifest.configuration.metadata.name.as_deref().unwrap_or_default()]);
    let update = spec.update_strategy.as_ref().and_then(|update| update.rolling_update.as_ref());
    let surge = update.and_then(|update| update.max_surge.clone());
    assert_eq!(serde_json::to_value(surge)?, 0, "two pods of one node would be rivals");
    Ok(())
}

#[test]
fn its_container_has_the_rights_and_the_mounts_that_are_tested() {
    isolated(|lab| {
        let manifest = manifest()?;
        let container = manifest.container();
        let rights = container.security_context.as_ref().ok_or("no security context")?;
        assert_eq!(
            (rights.privileged, rights.read_only_root_filesystem),
            (Some(false), Some(true))
        );
        // The API refuses `false` beside CAP_SYS_ADMIN.
        assert_eq!(rights.allow_privilege_escalation, None);
        let capabilities = rights.capabilities.as_ref().ok_or("no capabilities")?;
        assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
        let added = capabilities.add.iter().flatten().map(|name| format!("CAP_{name}"));
        let documented: BTreeSet<_> = documented_capabilities()?.into_iter().collect();
        assert_eq!(added.collect::<BTreeSet<_>>(), documented);

        let mounts = container.volume_mounts.iter().flatten();
        let mounts = mounts.map(|mount| (mount.mount_path.clone(), mount.read_only == Some(true)));
        assert_eq!(mounts.collect::<BTreeSet<_>>(), Bundle::new(lab, "run")?.binds());

        let (_, command) = Dockerfile::of_repository()?.process()?;
        let arguments = container.args.as_ref().ok_or("no arguments")?;
        assert!(arguments.starts_with(&command), "{arguments:?} instead of {command:?}");
        assert_eq!(arguments[command.len()..], ["--cgroup", "/sys/fs/cgroup"]);
        let image = format!("holdfast:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(container.image.as_deref(), Some(image.as_str()));
        for probe in
            [&container.startup_probe, &container.readiness_probe, &container.liveness_probe]
        {
            let command = probe.as_ref().and_then(|probe| probe.exec.as_ref()?.command.clone());
            assert_eq!(command.ok_or("no probe")?, ["holdfastctl", "status"]);
        }
        Ok(())
    });
}

/// Writes the ConfigMap as a kubelet does: data in a directory that a link leads to.
fn mounted(lab: &Lab, configuration: &ConfigMap) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let directory = lab.directory().join("configmap");
    for (name, text) in configuration.data.iter().flatten() {
        lab.write(&format!("configmap/..version/{name}"), text)?;
        std::os::unix::fs::symlink(format!("..data/{name}"), directory.join(name))?;
    }
    std::os::unix::fs::symlink("..version", directory.join("..data"))?;
    Ok(directory)
}

#[test]
fn its_configuration_is_one_that_is_accepted() {
    isolated(|lab| {
        let directory = mounted(lab, &manifest()?.configuration)?;
        let mut check = lab.beside(binaries::find(binaries::CTL)?)?;
        let ended = Ended::run(check.arg("check").arg(directory))?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("1 service"), "{ended:?}");
        Ok(())
    });
}

#[test]
fn the_documented_removal_changes_what_is_there() -> TestResult {
    let text = fs::read_to_string(context().join("deploy/README.md"))?;
    let (_, patch) = text.split_once("--type json --patch '").ok_or("no patch")?;
    let patch: Value = serde_json::from_str(patch.split('\'').next().unwrap_or_default())?;
    let daemon_set = serde_json::to_value(manifest()?.daemon_set)?;
    for change in patch.as_array().ok_or("a list of changes")? {
        let path = change["path"].as_str().ok_or("a path")?;
        assert!(daemon_set.pointer(path).is_some(), "{path} is not in the manifest");
    }
    Ok(())
}
