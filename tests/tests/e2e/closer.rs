//! What the child that closes connections does and does not do, whatever the maps say: a worker writes them, and
//! may have been taken over.

use std::error::Error;
use std::fs;
use std::net::TcpStream;

use holdfast_bpf::map::HashMap;
use holdfast_bpf::object;
use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Lab, LabError, Supervisor, TestResult, cgroup, eventually, isolated};
use holdfast_protocol::kernel::{SeatWord, SocketState, limit, map, phase};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::hooks;

use crate::drained::{API, Held, reach, service, start, text, with};
use crate::scene::{WEB, put_in_force};
use crate::seats::cookie;

/// The number of a socket that the kernel does not reach within years.
const NOBODY: u64 = 1 << 50;

/// What the programs remember of sockets.
struct Sockets(HashMap<u32, SocketState>);

impl Sockets {
    fn of(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        Ok(Self(HashMap::new(object::get(&hooks::pin(lab, Kind::Map, map::SOCKETS))?)?))
    }

    /// Where the element is that `wanted` accepts, and what it says.
    fn find(
        &self,
        wanted: impl Fn(&SocketState) -> bool,
    ) -> Result<(u32, SocketState), Box<dyn Error>> {
        for index in 0..limit::SOCKETS {
            let state = self.0.lookup(&index)?.ok_or("the array is shorter than it should be")?;
            if wanted(&state) {
                return Ok((index, state));
            }
        }
        Err("there is no such element".into())
    }

    /// Has all elements that are free belong to a socket that there is not.
    fn take_all(&self) -> TestResult {
        let seat = SeatWord::new(NOBODY, phase::IDLE).0;
        for index in 0..limit::SOCKETS {
            let state = self.0.lookup(&index)?.ok_or("the array is shorter than it should be")?;
            if state.seat == SeatWord::FREE.0 {
                self.0.update(&index, &SocketState { seat, ..state })?;
            }
        }
        Ok(())
    }

    /// Writes that `other` was sent where `sent` was, as a worker could that has been taken over.
    fn claim(&self, other: &TcpStream, sent: &TcpStream) -> Result<(), Box<dyn Error>> {
        let (other, sent) = (cookie(other)?, cookie(sent)?);
        let (_, known) = self.find(|state| SeatWord(state.seat).is_of(sent))?;
        let (free, _) = self.find(|state| state.seat == SeatWord::FREE.0)?;
        let seat = SeatWord::new(other, phase::OPEN).0;
        Ok(self.0.update(&free, &SocketState { seat, ..known })?)
    }
}

/// Waits until the log of the supervisor says all of `words` in one line.
fn await_line(supervisor: &Supervisor, words: &[&str]) -> Result<(), LabError> {
    eventually(&format!("a line with {words:?}"), || {
        let log = fs::read_to_string(supervisor.log()).map_err(|error| error.to_string())?;
        let is_it = |line: &str| words.iter().all(|word| line.contains(word));
        holds(log.lines().any(is_it), || log.clone())
    })
}

/// What `open` opens while this process is in the cgroup `path`.
fn within<T>(lab: &Lab, path: &std::path::Path, open: impl FnOnce() -> T) -> Result<T, LabError> {
    cgroup::enter(path)?;
    let opened = open();
    cgroup::enter(&lab.governed())?;
    Ok(opened)
}

#[test]
fn no_socket_outside_the_governed_cgroup_is_closed_whatever_the_maps_say() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let texts = |keys: &str| [with(service("web", WEB, Some("0s")), [&red, &green], keys)];
        let mut supervisor = start(lab, &texts("weight: 1"))?;
        let below = lab.governed().join("below");
        fs::create_dir(&below)?;
        let (mut governed, _others) = reach(WEB, "red", 1)?;
        let deeper = within(lab, &below, || reach(WEB, "red", 1))?;
        let (more, _others_deeper) = deeper?;
        governed.extend(more);
        // They have nothing to do with any of it, but for where they lead to.
        let mut outside = within(lab, &lab.control(), || Held::open(red.v4()))??;
        let mut outside6 = within(lab, &lab.control(), || Held::open(red.v6()))??;
        let sockets = Sockets::of(lab)?;
        for other in [&outside, &outside6] {
            sockets.claim(&other.stream, &governed[0].stream)?;
        }

        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        governed.iter_mut().for_each(Held::await_abort);
        let said = "it is not known to be in the governed cgroup";
        await_line(&supervisor, &["not every connection", said])?;
        outside.assert_alive();
        outside6.assert_alive();
        TestResult::Ok(())
    });
}

#[test]
fn what_has_time_left_stays_when_others_are_closed() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let both = [&red, &green];
        let texts = |keys: &str| {
            let api = with(service("api", API, Some("24h")), both, keys);
            [with(service("web", WEB, Some("0s")), both, keys), api]
        };
        let mut supervisor = start(lab, &texts("weight: 1"))?;
        let (mut closed, mut stay) = reach(WEB, "red", 2)?;
        let (kept, others) = reach(API, "red", 2)?;
        stay.extend(kept.into_iter().chain(others));
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        closed.iter_mut().for_each(Held::await_abort);
        await_line(&supervisor, &["were closed", "\"closed\":2"])?;
        stay.iter_mut().for_each(Held::assert_alive);
        TestResult::Ok(())
    });
}

#[test]
fn what_is_remembered_with_the_socket_itself_is_closed_as_well() {
    isolated(|lab| {
        let red = Backend::tcp("red")?;
        let texts = |keys: &str| {
            let web = service("web", WEB, Some("0s"));
            [web.endpoint_with(red.v4(), keys).endpoint_with(red.v6(), keys)]
        };
        let mut supervisor = start(lab, &texts("weight: 1"))?;
        let sockets = Sockets::of(lab)?;
        sockets.take_all()?;
        let mut late = Held::open(WEB)?;
        let number = cookie(&late.stream)?;
        let has = sockets.find(|state| SeatWord(state.seat).is_of(number));
        assert!(has.is_err(), "its place was to be taken");
        put_in_force(lab, &mut supervisor, &text(&texts("draining: true")))?;
        late.await_abort();
        TestResult::Ok(())
    });
}
