//! Who may write when, and what is left of whoever dies.

use std::os::fd::{AsRawFd, RawFd};

use holdfast_protocol::control::{WorkerAnswer, WorkerQuery};
use holdfast_protocol::handover::{ConfigState, FromChild, Occasion, Offer, ToChild};
use holdfast_protocol::kernel::{Frontend, ServiceCounters};

use crate::configuration::{self, file, key, services};
use crate::estate::Estate;
use crate::supervisor::{Worker, eventually, hello};

fn estate() -> Estate {
    Estate::new(64, 512)
}

#[test]
fn nothing_is_written_before_the_grant_and_all_of_it_after() {
    let (_directory, path) = file(&services(2, &[1001, 1002]));
    let estate = estate();
    let (worker, report) = Worker::ready(&path, &estate, Occasion::Start);
    assert_eq!((report.state, report.services, report.endpoints), (ConfigState::InForce, 2, 4));
    assert_eq!(report.digest.len(), 64);
    assert_eq!(estate.published(), []);
    assert_eq!(estate.frontends.entries().unwrap(), []);
    worker.grant(1);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001, 1002]));
    assert_eq!(estate.connect(&key(1)), Some(vec![1001, 1002]));
    assert_eq!(estate.connect(&key(2)), None);
}

#[test]
fn the_worker_has_no_privilege() {
    let (_directory, path) = file(&services(1, &[1001]));
    let worker = Worker::granted(&path, &estate(), 1);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let uid = nobody.uid.to_string();
    assert_eq!(worker.status("Uid"), [uid.as_str(); 4].join(" "));
    let gid = nobody.gid.to_string();
    assert_eq!(worker.status("Gid"), [gid.as_str(); 4].join(" "));
    assert_eq!(worker.status("Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(worker.status(set), "0000000000000000", "{set}");
    }
    assert_eq!(worker.status("NoNewPrivs"), "1");
}

#[test]
fn root_is_refused_unless_it_is_allowed() {
    let (_directory, path) = file(&services(1, &[1001]));
    let mut refused = Worker::spawn_with(&path, &["--user", "root"]);
    let reason = refused.hear();
    assert!(
        matches!(&reason, FromChild::Refused { reason } if reason.contains("--allow-root")),
        "{reason:?}"
    );
    let (status, log) = refused.await_end();
    assert!(!status.success() && log.contains("is root"), "{log}");
    let allowed = Worker::spawn_with(&path, &["--user", "0", "--allow-root"]);
    allowed.hand_over(&estate(), Occasion::Start);
    assert_eq!(allowed.await_ready().state, ConfigState::InForce);
    assert_eq!(allowed.status("CapEff"), "0000000000000000");
    assert_eq!(allowed.status("CapBnd"), "0000000000000000");
}

#[test]
fn a_successor_finds_everything_as_it_was_and_writes_nothing() {
    let (_directory, path) = file(&services(3, &[1001]));
    let estate = estate();
    let mut first = Worker::granted(&path, &estate, 1);
    let before = estate.published();
    let counted = ServiceCounters { connections: 5, ..ServiceCounters::default() };
    estate.counters.fill(1, counted).unwrap();
    first.kill();
    let second = Worker::granted(&path, &estate, 2);
    assert_eq!(estate.published(), before);
    let answer = second.ask(&WorkerQuery::Services { offset: 0 });
    let WorkerAnswer::Services { rows, next: None } = answer else { panic!("{answer:?}") };
    let cpus = estate.counters.lookup(1).unwrap().len() as u64;
    let connections: Vec<u64> = rows.iter().map(|row| row.connections).collect();
    assert_eq!(connections, [0, 5 * cpus, 0]);
    assert_eq!(
        (rows[2].service.as_str(), rows[2].addresses.as_slice()),
        ("s2", &["127.64.0.2".to_owned()][..])
    );
}

#[test]
fn what_is_in_force_already_need_not_be_compiled_first() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    let (mut first, report) = Worker::ready(&path, &estate, Occasion::Start);
    first.grant(1);
    first.kill();
    // Something that only compiling and comparing finds.
    estate.frontends.delete(&key(1)).unwrap();
    let second = Worker::spawn(&path);
    second.greet(Occasion::Recovery);
    second.tell(&ToChild::InForce(report.clone()), &[]);
    second.offer(&estate);
    assert_eq!(second.await_ready(), report);
    second.grant(2);
    eventually(|| estate.connect(&key(1)) == Some(vec![1001]));
}

#[test]
fn what_was_saved_after_the_crash_follows_the_grant() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let (mut first, report) = Worker::ready(&path, &estate, Occasion::Start);
    first.grant(1);
    first.kill();
    configuration::write(&path, &services(1, &[2001]));
    let second = Worker::spawn(&path);
    second.greet(Occasion::Recovery);
    second.tell(&ToChild::InForce(report.clone()), &[]);
    second.offer(&estate);
    assert_eq!(second.await_ready(), report, "nothing on disk is waited for");
    second.grant(2);
    eventually(|| estate.connect(&key(0)) == Some(vec![2001]));
}

#[test]
fn what_was_saved_wrongly_after_the_crash_keeps_nobody_from_following() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let (mut first, report) = Worker::ready(&path, &estate, Occasion::Start);
    first.grant(1);
    first.kill();
    configuration::write(&path, "services: [nonsense");
    let second = Worker::spawn(&path);
    second.greet(Occasion::Recovery);
    second.tell(&ToChild::InForce(report.clone()), &[]);
    second.offer(&estate);
    assert_eq!(second.await_ready(), report);
    second.tell(&ToChild::Grant { epoch: 2 }, &[]);
    let kept = second.await_config(|config| config.state == ConfigState::Rejected);
    assert_eq!(kept.digest, report.digest);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn a_worker_at_rest_has_no_map_in_its_memory() {
    let (_directory, path) = file(&services(2, &[1001]));
    let worker = Worker::granted(&path, &estate(), 1);
    eventually(|| !worker.mappings().contains("bpf-map"));
    // Whatever is asked brings some of it back, until nobody asks any more.
    let answer = worker.ask(&WorkerQuery::Services { offset: 0 });
    assert!(
        matches!(&answer, WorkerAnswer::Services { rows, .. } if rows.len() == 2),
        "{answer:?}"
    );
    eventually(|| !worker.mappings().contains("bpf-map"));
}

#[test]
fn what_a_dead_writer_left_is_repaired() {
    let (_directory, path) = file(&services(2, &[1001]));
    let estate = estate();
    let mut first = Worker::granted(&path, &estate, 1);
    first.kill();
    // As if it had died while preparing to remove one address and to add another.
    let going = estate.frontends.lookup(&key(0)).unwrap().unwrap();
    estate.frontends.update(&key(0), &Frontend { until: going.from + 1, ..going }).unwrap();
    let coming = Frontend { tag: key(9).tag(), from: going.from + 1, ..going };
    estate.frontends.update(&key(9), &coming).unwrap();
    let _second = Worker::granted(&path, &estate, 2);
    assert_eq!(estate.frontends.lookup(&key(0)).unwrap(), Some(going));
    assert_eq!(estate.frontends.lookup(&key(9)).unwrap(), None);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn a_released_worker_lets_go_and_may_be_granted_again() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let first = Worker::granted(&path, &estate, 1);
    first.tell(&ToChild::Release, &[]);
    assert_eq!(first.hear_until(|m| *m == FromChild::Released), FromChild::Released);
    configuration::write(&path, &services(1, &[2001]));
    let (second, _) = Worker::ready(&path, &estate, Occasion::Reload);
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]), "nobody is granted");
    second.grant(2);
    assert_eq!(estate.connect(&key(0)), Some(vec![2001]));
    second.tell(&ToChild::Release, &[]);
    second.hear_until(|m| *m == FromChild::Released);
    first.grant(3);
    // In shadow it has gone on reading, so it puts the same in force as soon as it has settled.
    eventually(|| estate.connect(&key(0)) == Some(vec![2001]));
}

#[test]
fn a_worker_that_is_told_to_leave_leaves() {
    let (_directory, path) = file(&services(1, &[1001]));
    let mut worker = Worker::granted(&path, &estate(), 1);
    worker.tell(&ToChild::Leave, &[]);
    let (status, _) = worker.await_end();
    assert!(status.success());
}

#[test]
fn a_worker_without_a_supervisor_ends_and_leaves_everything_in_force() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let mut worker = Worker::granted(&path, &estate, 1);
    worker.hang_up();
    let (status, log) = worker.await_end();
    assert!(!status.success() && log.contains("governance stays"), "{log}");
    assert_eq!(estate.connect(&key(0)), Some(vec![1001]));
}

#[test]
fn heartbeats_show_progress_and_the_epoch() {
    let (_directory, path) = file(&services(1, &[1001]));
    let worker = Worker::granted(&path, &estate(), 5);
    let beat = || match worker.hear_until(|m| matches!(m, FromChild::Heartbeat { .. })) {
        FromChild::Heartbeat { epoch, progress } => (epoch, progress),
        other => panic!("{other:?}"),
    };
    let beats = [beat(), beat(), beat()];
    assert!(beats.iter().all(|(epoch, _)| *epoch == 5), "{beats:?}");
    assert!(beats.windows(2).all(|pair| pair[0].1 < pair[1].1), "{beats:?}");
}

#[test]
fn an_offer_that_is_not_the_estate_is_refused() {
    let (_directory, path) = file(&services(1, &[1001]));
    let estate = estate();
    let other = self::estate();
    let raw: Vec<RawFd> = estate.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let refused = |entries, raw: &[RawFd], why: &str| {
        let mut worker = Worker::spawn(&path);
        worker.tell(&hello(Occasion::Start), &[]);
        worker.hear();
        worker.tell(&ToChild::Offer(Offer { index: 0, of: 1, entries }), raw);
        let reason = worker.hear();
        assert!(
            matches!(&reason, FromChild::Refused { reason } if reason.contains(why)),
            "{reason:?} instead of {why}"
        );
        assert!(!worker.await_end().0.success());
    };
    refused(other.entries.clone(), &raw, "its id is");
    refused(estate.entries.clone(), &raw[..5], "brought 5 descriptors");
    refused(estate.entries[..5].to_vec(), &raw[..5], "SOCKETS was offered 0 times");
    let mut swapped = raw.clone();
    swapped.swap(1, 2);
    refused(estate.entries.clone(), &swapped, "HEADS is not the one that was listed");
}

#[test]
fn a_grant_out_of_turn_ends_the_worker() {
    let (_directory, path) = file(&services(1, &[1001]));
    let mut worker = Worker::spawn(&path);
    worker.tell(&ToChild::Grant { epoch: 1 }, &[]);
    let reason = worker.hear();
    assert!(
        matches!(&reason, FromChild::Refused { reason } if reason.contains("Grant")),
        "{reason:?}"
    );
    assert!(!worker.await_end().0.success());
}

#[test]
fn rows_come_in_pages_and_in_the_order_of_the_configuration() {
    let (_directory, path) = file(&services(2000, &[1001, 1002]));
    let estate = Estate::new(4096, 16_384);
    let worker = Worker::granted(&path, &estate, 1);
    let mut seen = Vec::new();
    let mut offset = Some(0);
    let mut pages = 0;
    while let Some(from) = offset {
        let answer = worker.ask(&WorkerQuery::Services { offset: from });
        let WorkerAnswer::Services { rows, next } = answer else { panic!("{answer:?}") };
        seen.extend(rows.into_iter().map(|row| row.service));
        offset = next;
        pages += 1;
    }
    assert!(pages > 1);
    assert_eq!(seen, (0..2000).map(|number| format!("s{number}")).collect::<Vec<_>>());
    let answer = worker.ask(&WorkerQuery::Endpoints { offset: 3999 });
    let WorkerAnswer::Endpoints { rows, next: None } = answer else { panic!("{answer:?}") };
    assert_eq!(rows[0].endpoint, "127.0.0.1:1002");
}
