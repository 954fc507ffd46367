//! What others do to the estate behind the supervisor's back, with the real loader and worker, the
//! real kernel programs and real connections.

mod scene;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use holdfast_bpf::{link, object};
use holdfast_lab::wait::holds;
use holdfast_lab::{
    Attempt, Lab, LabError, TestResult, attempt, binaries, census, eventually, isolated,
};
use holdfast_protocol::control::Status;

use scene::Scene;

/// The links, which are called like their programs.
const LINKS: &[&str] = &holdfast_protocol::kernel::program::ALL;

impl<'a> Scene<'a> {
    fn start(lab: &'a Lab) -> Result<Self, LabError> {
        Self::start_with(lab, |launch| launch)
    }

    fn pins(&self) -> PathBuf {
        self.lab.bpffs().join("holdfast/lab")
    }

    fn object(&self, name: &str) -> Result<OwnedFd, holdfast_bpf::BpfError> {
        object::get(&self.pins().join(name))
    }

    /// Has every link attached: a policy is about arriving connections from now on.
    fn judge_arrivals(&mut self) -> Result<Status, LabError> {
        let path = self.lab.directory().join("holdfast.yaml");
        let policy = "policies: [{ name: p, direction: inbound, action: deny, rules: [{ to: { ports: [9] } }] }]\n";
        let text = fs::read_to_string(&path).map_err(LabError::system("read the configuration"))?;
        self.lab.write("holdfast.yaml", text + policy)?;
        self.supervisor.wait_until("every link attached", |status| {
            status.links.iter().all(|link| link.ok && !link.is_idle())
        })
    }

    /// Waits for another `count` audits that begin after this moment.
    fn after_audits(&mut self, count: u64) -> Result<Status, LabError> {
        // One may be under way.
        let wanted = self.supervisor.status()?.drift.audits + count + 1;
        self.supervisor.wait_until("more audits", |status| status.drift.audits >= wanted)
    }

    fn repaired(&mut self, count: u64) -> Result<Status, LabError> {
        self.supervisor.wait_until("the repair", |status| {
            status.drift.repairs >= count && status.drift.open.is_empty()
        })
    }
}

#[test]
fn pins_that_were_removed_or_replaced_are_back_with_the_same_objects() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let before = scene.pinned()?;
        fs::remove_file(scene.pins().join("links/hf_connect4"))?;
        let status = scene.repaired(1)?;
        assert_eq!(status.drift.last, "the pin of link hf_connect4 is missing");
        assert_eq!(scene.pinned()?, before);

        // Another object, a directory, and nothing: each in place of a pin.
        fs::rename(scene.pins().join("programs/hf_connect6"), scene.pins().join("maps/HEADS"))?;
        fs::remove_file(scene.pins().join("maps/TABLES"))?;
        fs::create_dir(scene.pins().join("maps/TABLES"))?;
        scene.repaired(4)?;
        assert_eq!(scene.pinned()?, before);

        // Everything at once, and with it what keeps another supervisor away.
        fs::remove_dir_all(scene.pins())?;
        scene.repaired(4 + u64::try_from(before.len())?)?;
        assert_eq!(scene.pinned()?, before);
        let file = lab.directory().join("holdfast.yaml");
        let second = lab
            .supervisor(&file)
            .binary(Path::new(env!("CARGO_BIN_EXE_holdfast")))
            .with("--worker", binaries::find(binaries::WORKER)?)
            .with("--run-dir", lab.directory().join("elsewhere"))
            .with("--state-dir", lab.directory().join("other-state"))
            .run()?;
        assert_eq!(second.code, Some(75), "{second:?}");
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn a_link_that_was_detached_is_attached_again() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let before = scene.judge_arrivals()?;
        for (done, name) in (1..).zip(LINKS) {
            let former = scene.object(&format!("links/{name}"))?;
            link::detach(former.as_fd())?;
            let status = scene.repaired(done)?;
            assert_eq!(status.drift.last, format!("link {name} is detached"));
            scene.assert_governed();
            for (link, original) in status.links.iter().zip(&before.links) {
                assert!(link.ok && link.pinned, "{link:?}");
                assert_eq!(link.prog_id, original.prog_id, "{link:?}");
            }
        }
        let after = scene.after_audits(2)?;
        assert_eq!(after.worker.pid, before.worker.pid, "the maps are the same");
        assert_eq!((after.drift.repairs, after.takeovers.count), (LINKS.len() as u64, 1));
        for (link, original) in after.links.iter().zip(&before.links) {
            assert_ne!(link.link_id, original.link_id, "{link:?}");
        }
        Ok(())
    });
}

#[test]
fn a_copy_of_ours_is_removed_and_what_was_there_stays() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        let before = scene.supervisor.status()?;
        let program = scene.object("programs/hf_connect4")?;
        let cgroup = File::open(lab.governed())?;
        let copy = link::create(program.as_fd(), cgroup.as_fd(), 10)?;
        let status = scene.repaired(1)?;
        assert_eq!(status.drift.last, "hf_connect4 runs once too often");
        let left = object::link_info(copy.as_fd())?.cgroup.map(|at| at.cgroup_id);
        assert_eq!(left, Some(0), "the copy is detached");
        assert_eq!(status.links, before.links);
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn a_foreign_program_is_left_alone_and_reported_once() {
    isolated(|lab| -> TestResult {
        let mut scene = Scene::start(lab)?;
        // To each of two instances, the other's programs are foreign.
        let other = lab
            .supervisor(&lab.directory().join("holdfast.yaml"))
            .binary(Path::new(env!("CARGO_BIN_EXE_holdfast")))
            .with("--worker", binaries::find(binaries::WORKER)?)
            .with("--instance", "other")
            .spawn()?;
        let links = lab.bpffs().join("holdfast/other");
        let others = || census::pins(lab, "other");
        eventually("the other's links", || {
            others()
                .map_err(|error| error.to_string())
                .and_then(|pins| holds(pins.len() > 8, || format!("{pins:?}")))
        })?;
        let theirs = others()?;
        let status = scene.after_audits(3)?;
        assert_eq!((status.drift.repairs, status.drift.open.len()), (0, 0));
        // Nothing needs the last one yet.
        let attached = &LINKS[..LINKS.len() - 1];
        for name in attached {
            let link = object::get(&links.join("links").join(name))?;
            let at = object::link_info(link.as_fd())?.cgroup.map_or(0, |at| at.cgroup_id);
            assert_ne!(at, 0, "{name} of the other instance is attached");
        }
        assert_eq!(others()?, theirs);
        let reports = scene.log().matches("is not ours: left alone").count();
        assert_eq!(reports, attached.len(), "{}", scene.log());
        drop(other);
        Ok(())
    });
}

#[test]
fn a_removed_cgroup_is_reported_once_and_one_made_anew_is_governed() {
    isolated(|lab| -> TestResult {
        let cgroup = lab.governed().join("below");
        fs::create_dir(&cgroup)?;
        let mut scene = Scene::start_with(lab, |launch| launch.with("--cgroup", &cgroup))?;
        fs::remove_dir(&cgroup)?;
        let status =
            scene.supervisor.wait_until("the report", |status| !status.drift.open.is_empty())?;
        let [report] = &status.drift.open[..] else { panic!("{:?}", status.drift) };
        assert!(report.contains("cgroup is gone"), "{report}");
        scene.after_audits(3)?;
        let said = |what: &str| scene.log().matches(what).count();
        assert_eq!(said("cgroup is gone"), 1, "{}", scene.log());
        assert_eq!(said("a loader repairs"), 0, "there is nothing to attach to");
        fs::create_dir(&cgroup)?;
        let status = scene.repaired(4)?;
        assert!(status.links.iter().all(|link| link.ok && link.pinned), "{status:?}");
        drop(scene);
        lab.uninstall()?;
        fs::remove_dir(&cgroup)?;
        Ok(())
    });
}

#[test]
fn a_repair_that_fails_is_said_and_tried_again() {
    isolated(|lab| -> TestResult {
        let worker = lab.directory().join("worker");
        binaries::replace(&worker, &binaries::find(binaries::WORKER)?)?;
        let mut scene = Scene::start_with(lab, |launch| launch.with("--worker", &worker))?;
        let away = lab.directory().join("away");
        fs::rename(&worker, &away)?;
        link::detach(scene.object("links/hf_connect4")?.as_fd())?;
        let status =
            scene.supervisor.wait_until("the drift", |status| !status.drift.open.is_empty())?;
        assert_eq!(status.drift.open, ["link hf_connect4 is detached"]);
        scene.after_audits(3)?;
        let log = scene.log();
        assert!(log.contains("the estate was not repaired"), "{log}");
        assert!(log.contains(&worker.display().to_string()), "{log}");
        assert!(
            matches!(attempt(&scene.target()), Attempt::Ungoverned(_)),
            "detached means ungoverned"
        );
        fs::rename(&away, &worker)?;
        scene.repaired(1)?;
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn leaving_and_removing_do_not_wait_for_a_repair() {
    isolated(|lab| -> TestResult {
        let scene = Scene::start(lab)?;
        // Whatever the moment: before the audit, while a loader is at work, or after it.
        for name in LINKS {
            link::detach(scene.object(&format!("links/{name}"))?.as_fd())?;
        }
        fs::remove_dir_all(scene.pins())?;
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!scene.pins().exists());
        Ok(())
    });
}
