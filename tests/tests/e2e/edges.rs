//! One more than there is room for: refused as a whole and by name, and what was in force stays.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use holdfast_lab::inside::INSTANCE;
use holdfast_lab::{Backend, Lab, Service, Supervisor, Target, TestResult, isolated, render};
use holdfast_protocol::control::Status;
use holdfast_protocol::handover::ConfigState;
use holdfast_tests::programmed::Maps;

use crate::scene::{FILE, assert_reached, put_in_force};

/// Numbers and slots of a small estate. It holds twice as many frontends as numbers.
const NUMBERS: u8 = 16;
const SLOTS: u8 = 64;

/// Limits of the language (`config/src/limit.rs`).
const MOST_SERVICES: u32 = 65_536;
const MOST_ENDPOINTS: u32 = 1_048_576;
const MOST_ENDPOINTS_OF_ONE: u32 = 65_535;

/// An estate of this size, and a backend behind every service.
struct Edge<'l> {
    lab: &'l Lab,
    red: Backend,
    supervisor: Supervisor,
}

/// The address of service `number`.
fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([127, 97, 0, number], 80))
}

impl<'l> Edge<'l> {
    /// Starts it with services that fill it as far as may be.
    fn start(
        lab: &'l Lab,
        full: impl Fn(&Backend) -> Vec<Service>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let red = Backend::tcp("red")?;
        let file = lab.write(FILE, render(&full(&red)))?;
        let launch = lab.supervisor(&file).with("--max-services", NUMBERS.to_string());
        let supervisor = launch.with("--max-slots", SLOTS.to_string()).start()?;
        Ok(Self { lab, red, supervisor })
    }

    /// Saves a configuration that is refused in `state` with `words`; nothing of it is in force, and
    /// nothing of what is has gone. The last good configuration is in force again once it is saved.
    fn refuses(
        &mut self,
        text: &str,
        state: ConfigState,
        words: &[&str],
        reached: impl IntoIterator<Item = u8>,
    ) -> TestResult {
        let good = std::fs::read_to_string(self.lab.directory().join(FILE))?;
        let is_there = |status: &Status| status.config.state == ConfigState::InForce;
        let before = self.supervisor.wait_until("all of it in force", is_there)?;
        let programmed = Maps::open(&self.lab.bpffs(), INSTANCE)?.read()?;
        self.lab.write(FILE, text)?;
        let refused = |status: &Status| status.config.state == state;
        let status = self.supervisor.wait_until("a refusal", refused)?;
        let error = &status.config.error;
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
        assert_eq!((status.services, status.endpoints), (before.services, before.endpoints));
        assert_eq!(status.config.digest, before.config.digest);
        assert_eq!(
            Maps::open(&self.lab.bpffs(), INSTANCE)?.read()?,
            programmed,
            "nothing was written"
        );
        assert_eq!(status.worker.pid, before.worker.pid, "the worker serves on");
        for number in reached {
            assert_reached(&Target::tcp(address(number), &[self.red.name()]));
        }
        let again = put_in_force(self.lab, &mut self.supervisor, &format!("# once more\n{good}"))?;
        assert_eq!(again.services, before.services);
        TestResult::Ok(())
    }
}

fn services(count: u8, red: &Backend) -> Vec<Service> {
    let service = |number| Service::tcp(&format!("s{number}"), address(number));
    (0..count).map(|number| service(number).endpoint(red.v4())).collect()
}

#[test]
fn one_service_more_than_the_estate_has_numbers() {
    isolated(|lab| {
        let mut edge = Edge::start(lab, |red| services(NUMBERS, red))?;
        let more = render(&services(NUMBERS + 1, &edge.red));
        let words = ["does not fit", "s16", "--max-services"];
        edge.refuses(&more, ConfigState::DoesNotFit, &words, 0..NUMBERS)
    });
}

#[test]
fn one_endpoint_more_than_the_estate_has_slots() {
    isolated(|lab| {
        // Another table has to be written beside the present one.
        let wide = |red: &Backend, count: u8| {
            let backend = (1..=count).map(|host| SocketAddr::from(([127, 0, 2, host], 18080)));
            let wide = Service::tcp("wide", address(1));
            vec![
                Service::tcp("narrow", address(0)).endpoint(red.v4()),
                backend.fold(wide, |service, endpoint| service.endpoint(endpoint)),
            ]
        };
        let mut edge = Edge::start(lab, |red| wide(red, SLOTS - 10))?;
        let more = render(&wide(&edge.red, SLOTS - 9));
        let words = ["does not fit", "wide", "--max-slots"];
        edge.refuses(&more, ConfigState::DoesNotFit, &words, [0])
    });
}

#[test]
fn one_address_more_than_the_estate_has_frontends() {
    isolated(|lab| {
        let wide = |red: &Backend, more: u8| {
            let service = Service::tcp("wide", address(0)).endpoint(red.v4());
            let others = (1..NUMBERS * 2 + more).map(|host| address(host).ip());
            vec![others.fold(service, |service, other| service.at(other))]
        };
        let mut edge = Edge::start(lab, |red| wide(red, 0))?;
        let more = render(&wide(&edge.red, 1));
        let words = ["does not fit", "wide", "32 frontends", "--max-services"];
        edge.refuses(&more, ConfigState::DoesNotFit, &words, 0..NUMBERS * 2)
    });
}

#[test]
fn ten_thousand_ports_on_one_service() {
    isolated(|lab| {
        let mut edge = Edge::start(lab, |red| services(1, red))?;
        let ports = (1..=10_000).fold(String::new(), |mut text, port| {
            let _ = write!(text, "{{ name: p{port}, port: {port} }}, ");
            text
        });
        let text = format!(
            "services:\n  - name: many\n    addresses: [127.97.0.9]\n    ports: [{ports}]\n    \
             endpoints: [{{ address: 127.0.0.1 }}]\n"
        );
        let words = ["`ports` has 10000 entries; the limit is 256"];
        edge.refuses(&text, ConfigState::Rejected, &words, [0])
    });
}

/// Services with as many endpoints each as `endpoints` says, in as few bytes as may be.
fn large(endpoints: impl IntoIterator<Item = u32>) -> String {
    let mut text = String::from("services:\n");
    for (number, count) in (0_u32..).zip(endpoints) {
        let address = Ipv4Addr::from(0x7f64_0000 + number);
        let _ = write!(
            text,
            "- {{name: s{number}, addresses: [{address}], ports: [{{name: p, port: 1}}], endpoints: ["
        );
        for endpoint in 0..count {
            let _ = write!(text, "{{address: {}}},", Ipv4Addr::from(0x0a00_0000 + endpoint));
        }
        text.push_str("]}\n");
    }
    text
}

#[test]
fn a_hundred_thousand_endpoints_in_one_service() {
    isolated(|lab| {
        let mut edge = Edge::start(lab, |red| services(1, red))?;
        let words = ["`endpoints` has 100000 entries; the limit is 65535"];
        edge.refuses(&large([100_000]), ConfigState::Rejected, &words, [0])
    });
}

#[test]
fn one_service_more_than_the_language_has() {
    isolated(|lab| {
        let mut edge = Edge::start(lab, |red| services(1, red))?;
        let text = large((0..=MOST_SERVICES).map(|_| 1));
        let words = ["`services` has 65537 entries; the limit is 65536"];
        edge.refuses(&text, ConfigState::Rejected, &words, [0])
    });
}

#[test]
fn one_endpoint_more_than_the_language_has() {
    isolated(|lab| {
        // Too much for one file: a directory of two.
        let red = Backend::tcp("red")?;
        let good = render(&services(1, &red));
        lab.write("conf/a.yaml", &good)?;
        let mut supervisor = lab.supervisor(&lab.directory().join("conf")).start()?;
        let before = supervisor.status()?;
        let half = MOST_ENDPOINTS / 2 / MOST_ENDPOINTS_OF_ONE;
        let full = vec![MOST_ENDPOINTS_OF_ONE; usize::try_from(half)?];
        let rest = MOST_ENDPOINTS - 2 * half * MOST_ENDPOINTS_OF_ONE;
        let (one, other) = (large(full.clone()), large(full.into_iter().chain([rest])));
        // One service more than these, and one endpoint more, is the one of `a.yaml`.
        lab.write(
            "conf/b.yaml",
            one.replace("name: s", "name: b").replace("127.100.", "127.101."),
        )?;
        lab.write("conf/c.yaml", other)?;
        let refused = |status: &Status| status.config.state == ConfigState::Rejected;
        let status = supervisor.wait_until("a refusal", refused)?;
        let words = "there are more than 1048576 endpoints";
        assert!(status.config.error.contains(words), "{}", status.config.error);
        assert_eq!(status.config.digest, before.config.digest);
        assert_reached(&Target::tcp(address(0), &[red.name()]));
        TestResult::Ok(())
    });
}
