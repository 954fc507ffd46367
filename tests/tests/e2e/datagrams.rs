//! Datagrams of sockets that are not connected: each is sent to an endpoint of the address it names,
//! its answer comes from that address, and a flow stays where it is.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};

use holdfast_lab::{Backend, Census, Service, TestResult, eventually, isolated, render};
use holdfast_protocol::manifest::Kind;
use holdfast_tests::life::{Life, Restart};
use holdfast_tests::rows::counted;
use nix::sys::signal::Signal;

use crate::scene::{FILE, mapped, put_in_force, serve, virtual_address, virtual_address6};

const DNS: SocketAddr = virtual_address(53, 53);

/// A client that is not connected to anybody.
struct Client(UdpSocket);

impl Client {
    fn ipv4() -> io::Result<Self> {
        Self::bound("0.0.0.0:0")
    }

    fn ipv6() -> io::Result<Self> {
        Self::bound("[::]:0")
    }

    /// One that can send to `address`.
    fn for_address(address: SocketAddr) -> io::Result<Self> {
        if address.is_ipv4() { Self::ipv4() } else { Self::ipv6() }
    }

    fn bound(address: &str) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(holdfast_lab::wait::PATIENCE))?;
        Ok(Self(socket))
    }

    /// Who answers next, and from which address.
    fn hear(&self) -> io::Result<(String, SocketAddr)> {
        let mut buffer = [0; 256];
        let (length, source) = self.0.recv_from(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        Ok((text.lines().next().unwrap_or_default().to_owned(), source))
    }

    /// Who answers a datagram to `address`; the answer has to come from there.
    #[track_caller]
    fn ask(&self, address: SocketAddr) -> io::Result<String> {
        self.0.send_to(b"who?", address)?;
        let (name, source) = self.hear()?;
        assert_eq!(source, address, "answered by {name}");
        Ok(name)
    }
}

fn backends(names: &[&str]) -> Result<Vec<Backend>, holdfast_lab::LabError> {
    names.iter().map(|name| Backend::udp(name)).collect()
}

fn dns(backends: &[&Backend]) -> Service {
    backends.iter().fold(Service::udp("dns", DNS), |service, it| service.endpoint(it.v4()))
}

#[test]
fn a_datagram_is_answered_by_the_address_it_named() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let v6 = virtual_address6(0x53, 53);
        let service = dns(&[&green]).at(v6.ip()).endpoint(green.v6());
        let _supervisor = serve(lab, &[service])?;
        for address in [DNS, v6, mapped(DNS)] {
            assert_eq!(Client::for_address(address)?.ask(address)?, "green");
        }
        // Both on one socket, more than once, and counted once each.
        let client = Client::ipv6()?;
        for address in [v6, mapped(DNS), mapped(DNS), v6] {
            assert_eq!(client.ask(address)?, "green");
        }
        assert_eq!(counted(lab, "dns", "connections")?, 5);
        Ok(())
    });
}

#[test]
fn flows_of_many_sockets_are_spread_and_counted_once() {
    const SOCKETS: u32 = 300;
    isolated(|lab| {
        let backends = backends(&["red", "green", "blue"])?;
        let _supervisor = serve(lab, &[dns(&backends.iter().collect::<Vec<_>>())])?;
        let mut answers = std::collections::BTreeMap::<String, u32>::new();
        for _ in 0..SOCKETS {
            let client = Client::ipv4()?;
            let first = client.ask(DNS)?;
            assert_eq!(client.ask(DNS)?, first);
            *answers.entry(first).or_default() += 1;
        }
        // A third each; half of that is six standard deviations away.
        assert!(answers.len() == 3 && answers.values().all(|count| *count > 50), "{answers:?}");
        assert_eq!(counted(lab, "dns", "connections")?, u64::from(SOCKETS));
        Ok(())
    });
}

/// Sockets with a flow each, and who answers it.
struct Flows(Vec<(Client, String)>);

impl Flows {
    fn open(sockets: usize) -> io::Result<Self> {
        let open = |_| {
            let client = Client::ipv4()?;
            let name = client.ask(DNS)?;
            Ok((client, name))
        };
        (0..sockets).map(open).collect::<io::Result<_>>().map(Self)
    }

    fn assert_kept(&self, after: &str) -> TestResult {
        for (client, name) in &self.0 {
            assert_eq!(client.ask(DNS)?, *name, "after {after}");
        }
        Ok(())
    }
}

#[test]
fn a_flow_keeps_its_endpoint_through_kills_saves_and_restarts() {
    const KILLS: u32 = 20;
    isolated(|lab| {
        let all = backends(&["red", "green", "blue", "late"])?;
        let (first, late) = all.split_at(3);
        let first: Vec<&Backend> = first.iter().collect();
        let mut life = Life::new(lab, lab.write(FILE, render(&[dns(&first)]))?);
        life.start()?;
        let flows = Flows::open(12)?;
        for kill in 0..KILLS {
            let status = life.supervisor().status()?;
            assert!(life.supervisor().kill_worker(status.worker.pid));
            flows.assert_kept("a kill")?;
            life.supervisor().wait_for_grant_after(status.epoch)?;
            // Every other time another endpoint comes or goes, and with it every row moves.
            let before: &[&Backend] = if kill % 2 == 0 { &[&late[0]] } else { &[] };
            let text = render(&[dns(&[before, &first].concat())]);
            put_in_force(lab, life.supervisor(), &text)?;
            flows.assert_kept("a save")?;
        }
        for restart in Restart::QUICK {
            life.restart(restart)?;
            flows.assert_kept(&format!("{restart:?}"))?;
        }
        life.end(Signal::SIGKILL)?;
        flows.assert_kept("the end of everybody")?;
        life.start()?;
        flows.assert_kept("a new life")?;
        assert_eq!(counted(lab, "dns", "connections")?, 12);
        Ok(())
    });
}

#[test]
fn the_flows_of_a_removed_endpoint_move_and_no_others() {
    isolated(|lab| {
        let all = backends(&["red", "green", "blue"])?;
        let mut supervisor = serve(lab, &[dns(&all.iter().collect::<Vec<_>>())])?;
        let flows = Flows::open(24)?;
        put_in_force(lab, &mut supervisor, &render(&[dns(&[&all[0], &all[2]])]))?;
        let mut moved = 0;
        for (client, name) in &flows.0 {
            let now = client.ask(DNS)?;
            assert!(now != "green" && (now == *name || name == "green"), "{name}, then {now}");
            assert_eq!(client.ask(DNS)?, now, "it stays where it moved to");
            moved += u64::from(now != *name);
        }
        assert!(moved > 0, "a third of them was at the endpoint");
        assert_eq!(counted(lab, "dns", "connections")?, 24 + moved);
        Ok(())
    });
}

#[test]
fn a_datagram_to_a_service_without_endpoint_fails_as_configured() {
    isolated(|lab| {
        let answers = [
            ("refuse", ErrorKind::ConnectionRefused),
            ("unreachable", ErrorKind::HostUnreachable),
            ("deny", ErrorKind::PermissionDenied),
        ];
        let at = |host| virtual_address(host, 53);
        let services: Vec<Service> = answers
            .iter()
            .zip(1..)
            .map(|((answer, _), host)| Service::udp(answer, at(host)).no_endpoint(answer))
            .collect();
        let _supervisor = serve(lab, &services)?;
        for ((answer, kind), host) in answers.into_iter().zip(1..) {
            for address in [at(host), mapped(at(host))] {
                let client = Client::for_address(address)?;
                let error = client.0.send_to(b"who?", address).expect_err("there is no endpoint");
                assert_eq!(error.kind(), kind, "{answer} at {address}: {error}");
            }
            assert_eq!(counted(lab, answer, "refused")?, 2);
        }
        Ok(())
    });
}

#[test]
fn an_ipv6_datagram_does_not_reach_an_ipv4_endpoint() {
    isolated(|lab| {
        let (green, v6) = (Backend::udp("green")?, virtual_address6(0x53, 53));
        let _supervisor = serve(lab, &[Service::udp("dns", v6).endpoint(green.v4())])?;
        let error = Client::ipv6()?.0.send_to(b"who?", v6).expect_err("the kernel cannot");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{error}");
        Ok(())
    });
}

#[test]
fn one_socket_talks_to_several_virtual_addresses() {
    isolated(|lab| {
        let all = backends(&["red", "green"])?;
        let addresses = [DNS, virtual_address(54, 53), virtual_address(55, 53)];
        let services = [
            Service::udp("a", addresses[0]).endpoint(all[0].v4()),
            Service::udp("b", addresses[1]).endpoint(all[1].v4()),
            // Another name for the first one's endpoint.
            Service::udp("c", addresses[2]).endpoint(all[0].v4()),
        ];
        let _supervisor = serve(lab, &services)?;
        let client = Client::ipv4()?;
        // Two at a time: each answer has the name of its own question.
        for _ in 0..3 {
            client.0.send_to(b"who?", addresses[0])?;
            client.0.send_to(b"who?", addresses[1])?;
            let heard = BTreeSet::from([client.hear()?, client.hear()?]);
            let expected = [("red".to_owned(), addresses[0]), ("green".to_owned(), addresses[1])];
            assert_eq!(heard, BTreeSet::from(expected));
        }
        // One after the other also where two names lead to one endpoint.
        for address in [addresses[0], addresses[2], addresses[2], addresses[0]] {
            assert_eq!(client.ask(address)?, "red");
        }
        Ok(())
    });
}

#[test]
fn what_is_not_a_frontend_is_sent_and_answered_as_it_is() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let _supervisor = serve(lab, &[dns(&[&green])])?;
        let client = Client::ipv4()?;
        assert_eq!(client.ask(green.v4())?, "green");
        assert_eq!(client.ask(DNS)?, "green");
        // The same endpoint by its own name, after it was asked for by another.
        assert_eq!(client.ask(green.v4())?, "green");
        assert_eq!(client.ask(DNS)?, "green");
        let other_port = SocketAddr::new(DNS.ip(), 54);
        let _own = Backend::udp_at("own", &[other_port])?;
        for address in [other_port, mapped(other_port)] {
            assert_eq!(Client::for_address(address)?.ask(address)?, "own");
        }
        Ok(())
    });
}

#[test]
fn a_connected_socket_that_names_its_peer_again_stays_with_its_endpoint() {
    isolated(|lab| {
        let all = backends(&["red", "green", "blue"])?;
        let v6 = virtual_address6(0x53, 53);
        let service = all
            .iter()
            .fold(dns(&[]).at(v6.ip()), |service, it| service.endpoint(it.v4()).endpoint(it.v6()));
        let _supervisor = serve(lab, &[service])?;
        for address in [DNS, mapped(DNS), v6] {
            for _ in 0..12 {
                let client = Client::for_address(address)?;
                client.0.connect(address)?;
                // With and without the address: a connected socket hears nobody but its peer.
                let name = client.ask(address)?;
                client.0.send(b"who?")?;
                assert_eq!(client.hear()?, (name.clone(), address));
                assert_eq!(client.ask(address)?, name);
            }
        }
        assert_eq!(counted(lab, "dns", "connections")?, 36);
        Ok(())
    });
}

#[test]
fn the_least_recently_used_flows_make_way() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let file = lab.write(FILE, render(&[dns(&[&green])]))?;
        let _supervisor = lab.supervisor(&file).with("--max-flows", "64").start()?;
        let clients: Vec<Client> = (0..512).map(|_| Client::ipv4()).collect::<io::Result<_>>()?;
        for client in clients.iter().chain(&clients) {
            assert_eq!(client.ask(DNS)?, "green");
        }
        Ok(())
    });
}

#[test]
fn uninstalling_leaves_no_flow() {
    isolated(|lab| {
        let before = Census::take(lab, &Census::default())?;
        let green = Backend::udp("green")?;
        let mut supervisor = serve(lab, &[dns(&[&green])])?;
        let client = Client::ipv4()?;
        assert_eq!(client.ask(DNS)?, "green");
        let during = Census::take(lab, &before)?;
        assert_eq!(during.ids(Kind::Link).len(), holdfast_protocol::kernel::program::ALL.len());
        let ended = lab.uninstall()?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("sendmsg4") && ended.stdout.contains("FLOWS"), "{ended:?}");
        supervisor.ended()?;
        before.wait_for_return(lab, &during)?;
        // The socket that had a flow is as any other.
        let _own = Backend::udp_at("own", &[DNS])?;
        eventually("the address to be its own", || match client.ask(DNS) {
            Ok(name) if name == "own" => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        Ok(())
    });
}
