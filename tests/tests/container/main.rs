//! What is under `deploy/`: the image as containers that runc runs, each as process 1 in pid, mount,
//! network, cgroup, IPC and UTS namespaces of its own, and the files that start it elsewhere.
//!
//! - [`dockerfile`]: `deploy/Dockerfile`, read and carried out.
//! - [`bundle`], [`container`]: what runc is given, and a guard around what it runs.
//! - [`lives`]: a whole container goes and another one comes.
//! - [`signals`]: what reaches process 1, and what its runtime sees.
//! - [`confinement`]: with how little it works, and what it says when something is missing.
//! - [`rivals`]: several containers at one instance.
//! - [`service`]: the systemd unit, under a systemd that is process 1 of a container.
//! - [`cluster`], [`yaml`]: the Kubernetes manifest.
//! - [`manifests`]: what the files say, the Dockerfile among them.

mod bundle;
mod cluster;
mod confinement;
mod container;
mod dockerfile;
mod lives;
mod manifests;
mod rivals;
mod service;
mod signals;
mod yaml;
