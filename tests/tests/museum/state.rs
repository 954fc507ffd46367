//! What is programmed and set, across deaths.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_bpf::object;
use holdfast_lab::inside::INSTANCE;
use holdfast_lab::load::Shape;
use holdfast_lab::random::Random;
use holdfast_lab::{Backend, Lab, Load, Service, Target, TestResult, isolated, process, render};
use holdfast_protocol::kernel::map;
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::programmed::{Maps, fresh};
use holdfast_tests::scene::{FILE, put_in_force, virtual_address, wait_until_ungoverned};
use holdfast_tests::watch::Watch;
use nix::sys::signal::Signal;

/// Services without endpoints, and what a connection to each fails with.
const REFUSALS: [(&str, i32); 3] =
    [("refuse", libc::ECONNREFUSED), ("unreachable", libc::EHOSTUNREACH), ("deny", libc::EPERM)];

/// What a worker is started with, but for its program and the numbers of its descriptors.
fn worker_settings(pid: u32) -> Result<Vec<String>, holdfast_lab::LabError> {
    let mut arguments = process::arguments(pid)?.split_off(1);
    arguments.retain(|argument| !argument.starts_with("--watch="));
    Ok(arguments)
}

/// Kmesh: node address, log level and feature switches fell back to their defaults on a restart.
/// What was set stays set in every kind of restart: in the processes and in the kernel.
#[test]
fn pf05_settings_survive_every_kind_of_restart() {
    const USER: u32 = 12_345;
    const SERVICES: u32 = 100;
    isolated(|lab| {
        let at = |host: usize| virtual_address(u8::try_from(host).expect("few"), 80);
        let refusals = REFUSALS.iter().enumerate();
        let services: Vec<Service> = refusals
            .map(|(host, (answer, _))| Service::tcp(answer, at(host)).no_endpoint(answer))
            .collect();
        let mut life = Life::new(lab, lab.write(FILE, render(&services))?)
            .with("--worker-user", USER.to_string())
            .with("--max-services", SERVICES.to_string())
            .with("--max-slots", "300");
        let first = life.start()?;
        let settings = worker_settings(first.worker.pid)?;
        for restart in Restart::ALL {
            let status = life.restart(restart)?;
            assert_eq!((status.worker.uid, status.worker.capabilities.len()), (USER, 0));
            assert_eq!(worker_settings(status.worker.pid)?, settings, "{restart:?}");
            assert_eq!(status.instance, INSTANCE);
            assert_eq!((&status.config, status.services), (&first.config, first.services));
            assert_eq!(status.links, first.links, "{restart:?}");
            assert!(status.epoch > first.epoch || restart == Restart::SupervisorReplaced);
            let heads = object::get(&hooks::pin(lab, Kind::Map, map::HEADS))?;
            let heads = object::map_info(std::os::fd::AsFd::as_fd(&heads))?;
            assert_eq!(heads.shape.max_entries, SERVICES, "{restart:?}");
            for (host, (answer, errno)) in REFUSALS.iter().enumerate() {
                let error = TcpStream::connect(at(host)).expect_err("there is no endpoint");
                assert_eq!(error.raw_os_error(), Some(*errno), "{answer} after {restart:?}");
            }
            let log = fs::read_to_string(life.supervisor().log())?;
            for line in log.lines() {
                let json: Result<serde_json::Value, _> = serde_json::from_str(line);
                assert!(json.is_ok(), "after {restart:?} not as --log-format says: {line}");
            }
        }
        Ok(())
    });
}

/// Ports of the two servers that stand behind every service, at any address of the loopback network.
const RED: u16 = 18_080;
const BLUE: u16 = 18_081;
/// Endpoints of a service that leads to [`RED`], and of one that leads to [`BLUE`].
const REDS: u8 = 3;
const BLUES: u8 = 2;
const CHURNING: u8 = 20;
/// Room for little more than twice what is programmed: a leak shows within a few deaths.
const MAX_SERVICES: &str = "64";
const MAX_SLOTS: &str = "256";

/// The virtual address of service `number`.
fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 97, 0, number], 80))
}

/// All services lead to one server, each by all of its endpoints. Beside them there is a service
/// that the other configuration does not have.
fn churn(port: u16) -> Vec<Service> {
    let (own, endpoints) = if port == RED { ("red-only", REDS) } else { ("blue-only", BLUES) };
    let lead = |service: Service| {
        (1..=endpoints).fold(service, |service, host| {
            service.endpoint(SocketAddr::from(([127, 0, 1, host], port)))
        })
    };
    let mut services: Vec<Service> = (0..CHURNING)
        .map(|number| lead(Service::tcp(&format!("s{number}"), address(number))))
        .collect();
    let moving = Service::tcp(own, virtual_address(if port == RED { 1 } else { 2 }, 81));
    services.push(lead(moving.at(virtual_address(3, 81).ip())));
    services
}

/// Watches that each published table leads to one server, by all of its endpoints.
fn each_service_whole(lab: &Lab) -> Result<Watch, Box<dyn Error>> {
    let maps = Maps::open(&lab.bpffs(), INSTANCE)?;
    let numbers = u32::try_from(MAX_SERVICES.parse::<usize>()?)?;
    Ok(Watch::start(move || {
        (0..numbers).try_for_each(|number| {
            let Some(table) = maps.table(number)? else { return Ok(()) };
            let of = |port| table.endpoints.iter().filter(|it| it.0.port() == port).count();
            match (of(RED), of(BLUE), table.endpoints.len()) {
                (3, 0, 3) | (0, 2, 2) => Ok(()),
                _ => Err(format!("the table of {number} is neither old nor new: {table:?}")),
            }
        })
    }))
}

/// Kills workers at random instants of updates, while clients connect and the maps are watched; then
/// the next worker has repaired what was left.
fn killed_while_writing(lab: &Lab, life: &mut Life<'_>, kills: u32, seed: u64) -> TestResult {
    let _red = Backend::tcp_at("red", &[SocketAddr::from(([0, 0, 0, 0], RED))])?;
    let _blue = Backend::tcp_at("blue", &[SocketAddr::from(([0, 0, 0, 0], BLUE))])?;
    let targets = (0..CHURNING).map(|number| Target::tcp(address(number), &["red", "blue"]));
    let shape = Shape { clients: 2, rest: Duration::from_millis(1), seed };
    let load = Load::start(&targets.collect::<Vec<_>>(), shape);
    let watch = each_service_whole(lab)?;
    let mut random = Random::new(seed);
    for kill in 0..kills {
        lab.write(FILE, render(&churn(if kill % 2 == 0 { BLUE } else { RED })))?;
        // A save is noticed, read and written within some milliseconds.
        std::thread::sleep(Duration::from_micros(random.below(8_000)));
        if let Some(worker) = life.supervisor().workers().first() {
            life.supervisor().kill_worker(*worker);
        }
        if random.below(3) == 0 {
            life.supervisor().wait_for_grant()?;
        }
    }
    let tally = load.finish();
    assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
    // Everything goes and comes: what a dead writer has left would be in the way.
    for services in [Vec::new(), churn(BLUE), churn(RED)] {
        put_in_force(lab, life.supervisor(), &render(&services))?;
    }
    watch.assert_right(20);
    assert_equals_fresh(lab, life.file())
}

/// The maps say what those of an instance say that never knew another configuration.
fn assert_equals_fresh(lab: &Lab, file: &Path) -> TestResult {
    let (found, expected) = (Maps::open(&lab.bpffs(), INSTANCE)?.read()?, fresh(lab, file)?);
    assert_eq!(found, expected);
    assert!(found.left_over.is_empty() && !found.services.is_empty(), "{found:?}");
    Ok(())
}

fn small<'a>(lab: &'a Lab) -> Result<Life<'a>, Box<dyn Error>> {
    let file = lab.write(FILE, render(&churn(RED)))?;
    let life = Life::new(lab, file).with("--max-services", MAX_SERVICES);
    Ok(life.with("--max-slots", MAX_SLOTS))
}

/// Kmesh #789, #1042: killed between two writes, a daemon left an endpoint that never got traffic
/// again, or had its slot twice. A writer killed at any write leaves each service wholly old or
/// wholly new, and the next worker repairs what leaked. (Every single write is tried by `worker`'s
/// own tests; here the real processes die at random.)
#[test]
fn pf06_a_killed_writer_leaves_each_service_whole() {
    isolated(|lab| {
        let mut life = small(lab)?;
        life.start()?;
        killed_while_writing(lab, &mut life, 60, 6)
    });
}

/// A configuration that takes more memory to read than a worker gets in [`pf14`]'s life.
fn heavy() -> String {
    const SERVICES: u16 = 12_000;
    let service = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let service =
            Service::tcp(&format!("h{number}"), SocketAddr::from(([127, 98, high, low], 80)));
        service.endpoint(SocketAddr::from(([127, 0, 1, 1], RED)))
    };
    render(&(0..SERVICES).map(service).collect::<Vec<_>>())
}

/// Cilium #11983: an agent killed for its memory in the middle of an update broke established
/// connections. The same as PF06 holds under a limit of memory, and a configuration that does not fit
/// into it changes nothing.
#[test]
fn pf14_a_worker_out_of_memory_changes_nothing() {
    /// Kibibytes of address space.
    const LIMIT: u32 = 48 * 1024;
    isolated(|lab| {
        let real = holdfast_lab::binaries::find(holdfast_lab::binaries::WORKER)?;
        let commands = format!("ulimit -v {LIMIT}; exec {} \"$@\"", real.display());
        let worker = holdfast_tests::builds::script(lab, "limited", &commands)?;
        let mut life = small(lab)?.with("--worker", worker);
        life.start()?;
        let before = Maps::open(&lab.bpffs(), INSTANCE)?.read()?;
        let deaths = life.supervisor().status()?.takeovers;
        lab.write(FILE, heavy())?;
        life.supervisor().wait_until("workers to die of it", |status| {
            status.takeovers.count + status.takeovers.failed > deaths.count + deaths.failed + 2
        })?;
        assert_eq!(Maps::open(&lab.bpffs(), INSTANCE)?.read()?, before);
        life.supervisor().status()?;
        lab.write(FILE, render(&churn(RED)))?;
        life.supervisor().signal(Signal::SIGHUP)?;
        life.supervisor().wait_for_grant()?;
        killed_while_writing(lab, &mut life, 30, 14)
    });
}

/// What a configuration may become while nobody serves: services go, come, move and give each other
/// their addresses.
fn changed() -> Vec<Service> {
    let mut services = churn(BLUE);
    services.remove(5);
    services[6] = Service::tcp("s7", address(8)).endpoint(SocketAddr::from(([127, 0, 1, 9], BLUE)));
    services[7] =
        Service::tcp("s8", address(7)).weighted(SocketAddr::from(([127, 0, 1, 9], RED)), 7);
    services
}

/// Kmesh: an address that changed while the daemon was down stayed in the map for ever. After a
/// takeover the maps equal what the configuration compiles to, entry for entry.
#[test]
fn pf07_what_changed_while_nobody_served_is_gone_from_the_maps() {
    isolated(|lab| {
        let _blue = Backend::tcp_at("blue", &[SocketAddr::from(([0, 0, 0, 0], BLUE))])?;
        let mut life = small(lab)?;
        life.start()?;
        assert_equals_fresh(lab, life.file())?;
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            life.end(signal)?;
            lab.write(FILE, render(&changed()))?;
            life.start()?;
            assert_equals_fresh(lab, life.file())?;
            // `s5` is not there any more, and its address leads nowhere.
            wait_until_ungoverned(&Target::tcp(address(5), &["blue"]))?;
            life.end(signal)?;
            lab.write(FILE, render(&churn(RED)))?;
            life.start()?;
            assert_equals_fresh(lab, life.file())?;
        }
        Ok(())
    });
}

/// The files of the lab's instance outside the kernel.
fn side_files(lab: &Lab) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut files = Vec::new();
    for directory in [lab.state_directory(), lab.run_directory()] {
        for entry in fs::read_dir(directory.join(INSTANCE))? {
            files.push(entry?.path());
        }
    }
    Ok(files)
}

/// Kmesh #153, #479: what was stale was found by a file beside the maps, and a damaged file hid it. The
/// maps are the only store of what is programmed: files that are lost or damaged hide nothing.
#[test]
fn pf08_no_side_file_is_needed_to_reconcile() {
    type Damage = fn(&Path) -> std::io::Result<()>;
    const DAMAGES: [(&str, Damage); 4] = [
        ("removed", |path| fs::remove_file(path)),
        ("empty", |path| fs::remove_file(path).and_then(|()| fs::write(path, ""))),
        ("garbage", |path| fs::remove_file(path).and_then(|()| fs::write(path, [0xa5; 4096]))),
        ("a directory", |path| fs::remove_file(path).and_then(|()| fs::create_dir(path))),
    ];
    isolated(|lab| {
        let mut life = small(lab)?;
        let (links, maps) = (life.start()?.links, hooks::map_ids(lab)?);
        for (round, (what, damage)) in DAMAGES.iter().enumerate() {
            life.end(Signal::SIGKILL)?;
            let files = side_files(lab)?;
            assert!(!files.is_empty(), "there is nothing to damage");
            // A directory in place of lock or socket is refused by name: only people can know better.
            let run = lab.run_directory();
            let is_spared = |path: &PathBuf| *what == "a directory" && path.starts_with(&run);
            for path in files.iter().filter(|path| !is_spared(path)) {
                damage(path).map_err(|error| format!("{what}, {}: {error}", path.display()))?;
            }
            lab.write(FILE, render(&if round % 2 == 0 { changed() } else { churn(RED) }))?;
            let status = life.start().map_err(|error| format!("{what}: {error}"))?;
            assert_eq!((status.links, hooks::map_ids(lab)?), (links.clone(), maps.clone()));
            assert_equals_fresh(lab, life.file()).map_err(|error| format!("{what}: {error}"))?;
        }
        Ok(())
    });
}
