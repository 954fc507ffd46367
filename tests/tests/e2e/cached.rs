//! What lookups found is remembered, and counts for as long as it is so.

use std::error::Error;
use std::net::SocketAddr;

use holdfast_bpf::mapped::MappedArray;
use holdfast_bpf::object;
use holdfast_lab::{Backend, Lab, Service, Target, TestResult, isolated, render};
use holdfast_protocol::kernel::cache::{CacheLine, Era};
use holdfast_protocol::kernel::{FrontendKey, HeadWord, PROTOCOL_TCP, limit, map};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;
use holdfast_tests::life::{Life, Restart};

use crate::scene::{
    FILE, Scene, WEB, assert_reached, put_in_force, serve, virtual_address, wait_until_ungoverned,
};

const MOVES: SocketAddr = virtual_address(11, 80);
const OTHER: SocketAddr = virtual_address(12, 80);

/// The cache of the instance.
struct Cache(MappedArray<CacheLine>);

impl Cache {
    fn open(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        let map = object::get(&hooks::pin(lab, Kind::Map, map::ADDRESS_CACHE))?;
        Ok(Self(MappedArray::map(map)?))
    }

    fn era(&self) -> Era {
        Era(self.0.read(limit::CACHE_LINES).era)
    }

    fn set_era(&mut self, era: Era) {
        self.0.write_word(limit::CACHE_LINES, CacheLine::ERA_WORD, era.0);
    }

    /// What counts of TCP to `address` now: the number of a service, and its head.
    fn known(&self, address: SocketAddr) -> Option<(u32, HeadWord)> {
        let key = key(address);
        let line = self.0.read(line_of(&key));
        let is_it = line.era == self.era().0 && line.address == key.address;
        let service = u32::try_from(line.place >> 32).expect("half a word");
        (is_it && line.place == CacheLine::place(&key, service))
            .then_some((service, HeadWord(line.head)))
    }
}

fn key(address: SocketAddr) -> FrontendKey {
    let SocketAddr::V4(v4) = address else { panic!("{address} is not of IPv4") };
    let address = holdfast_protocol::kernel::mapped(u32::from_le_bytes(v4.ip().octets()));
    FrontendKey { address, port_be: v4.port().to_be(), protocol: PROTOCOL_TCP, reserved: 0 }
}

fn line_of(key: &FrontendKey) -> u32 {
    key.tag() & (limit::CACHE_LINES - 1)
}

fn heads(lab: &Lab) -> Result<MappedArray<HeadWord>, Box<dyn Error>> {
    Ok(MappedArray::map(object::get(&hooks::pin(lab, Kind::Map, map::HEADS))?)?)
}

/// A line that says something wrong shows what programs make of it.
#[test]
fn what_a_lookup_found_is_believed_until_the_era_ends() {
    isolated(|lab| -> TestResult {
        let scene = Scene::start(lab)?;
        let mut cache = Cache::open(lab)?;
        let (service, head) = cache.known(WEB).ok_or("nothing is known of the service")?;
        assert_eq!(heads(lab)?.read(service), head);
        assert_eq!(cache.known(OTHER), None);
        wait_until_ungoverned(&Target::tcp(OTHER, &[]))?;
        assert_eq!(cache.known(OTHER), Some((CacheLine::NOBODY, HeadWord::UNPUBLISHED)));

        cache.0.protect(true)?;
        let line = line_of(&key(WEB));
        let truth = cache.0.read(line);
        let nobodys = CacheLine { place: CacheLine::place(&key(WEB), CacheLine::NOBODY), ..truth };
        cache.0.write(line, nobodys);
        wait_until_ungoverned(&scene.target())?;
        cache.0.write(line, CacheLine { version: truth.version | 1, ..nobodys });
        scene.assert_governed();
        cache.0.write(line, nobodys);
        wait_until_ungoverned(&scene.target())?;
        let era = cache.era();
        cache.set_era(era.ended());
        scene.assert_governed();
        assert_eq!(cache.0.read(line), nobodys, "nothing is remembered between two eras");
        cache.set_era(era.next());
        scene.assert_governed();
        assert_eq!(cache.known(WEB), Some((service, head)), "it was looked up again");
        Ok(())
    });
}

/// The one change that no head tells of.
#[test]
fn an_address_that_another_service_takes_leads_there_though_its_giver_stays_as_it_is() {
    isolated(|lab| -> TestResult {
        let (red, blue) = (Backend::tcp("red")?, Backend::tcp("blue")?);
        let giver = Service::tcp("giver", WEB).endpoint(red.v4());
        let taker = Service::tcp("taker", OTHER).endpoint(blue.v4());
        let mut supervisor = serve(lab, &[giver.clone().at(MOVES.ip()), taker.clone()])?;
        let (cache, heads) = (Cache::open(lab)?, heads(lab)?);
        for (address, backend) in [(WEB, "red"), (MOVES, "red"), (OTHER, "blue")] {
            assert_reached(&Target::tcp(address, &[backend]));
        }
        let (number, head) = cache.known(MOVES).ok_or("nothing is known of the address")?;
        put_in_force(lab, &mut supervisor, &render(&[giver, taker.at(MOVES.ip())]))?;
        assert_eq!(heads.read(number), head, "there is nothing new of the giver");
        for (address, backend) in [(WEB, "red"), (MOVES, "blue"), (OTHER, "blue")] {
            assert_reached(&Target::tcp(address, &[backend]));
        }
        Ok(())
    });
}

/// What is remembered is of the kernel's maps, not of who writes them.
#[test]
fn what_was_found_is_still_known_after_any_restart() {
    isolated(|lab| -> TestResult {
        let red = Backend::tcp("red")?;
        let mut life = Life::new(lab, lab.write(FILE, render(&[crate::scene::web(&red)]))?);
        life.start()?;
        let target = Target::tcp(WEB, &["red"]);
        assert_reached(&target);
        let cache = Cache::open(lab)?;
        let known = cache.known(WEB);
        assert!(known.is_some() && cache.era().is_open());
        for restart in
            [Restart::WorkerKilled, Restart::SupervisorKilled, Restart::SupervisorReplaced]
        {
            life.restart(restart)?;
            assert_eq!(cache.known(WEB), known, "{restart:?}");
            assert_reached(&target);
        }
        Ok(())
    });
}
