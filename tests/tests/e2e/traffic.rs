//! Connections to a service's address reach its endpoints, and nothing else is touched.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use holdfast_lab::inside::Ended;
use holdfast_lab::{Backend, Service, Target, TestResult, isolated};

use crate::scene::{Scene, WEB, assert_reached, mapped, serve, virtual_address, virtual_address6};

#[test]
fn a_tcp_connection_reaches_an_endpoint() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn an_ipv6_connection_reaches_an_ipv6_endpoint() {
    isolated(|lab| {
        let (red, address) = (Backend::tcp("red")?, virtual_address6(0x10, 80));
        let service = Service::tcp("web", address).endpoint(red.v6());
        let _supervisor = serve(lab, &[service])?;
        assert_reached(&Target::tcp(address, &["red"]));
        Ok(())
    });
}

#[test]
fn an_ipv6_frontend_without_ipv6_endpoints_reaches_the_ipv4_ones() {
    isolated(|lab| {
        let (red, address) = (Backend::tcp("red")?, virtual_address6(0x10, 80));
        let service = Service::tcp("web", address).endpoint(red.v4());
        let _supervisor = serve(lab, &[service])?;
        assert_reached(&Target::tcp(address, &["red"]));
        Ok(())
    });
}

#[test]
fn an_ipv6_socket_reaches_an_ipv4_service_through_its_mapped_address() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        assert_reached(&Target { address: mapped(WEB), ..scene.target() });
        Ok(())
    });
}

#[test]
fn a_connected_udp_socket_reaches_an_endpoint() {
    isolated(|lab| {
        let green = Backend::udp("green")?;
        let (v4, v6) = (virtual_address(53, 53), virtual_address6(0x53, 53));
        let service = Service::udp("dns", v4).at(v6.ip()).endpoint(green.v4()).endpoint(green.v6());
        let _supervisor = serve(lab, &[service])?;
        for address in [v4, v6, mapped(v4)] {
            assert_reached(&Target::udp(address, &["green"]));
        }
        Ok(())
    });
}

#[test]
fn tcp_and_udp_of_one_address_and_port_are_two_services() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::udp("green")?);
        let address = virtual_address(10, 443);
        let services = [
            Service::tcp("web", address).endpoint(red.v4()),
            Service::udp("quic", address).endpoint(green.v4()),
        ];
        let _supervisor = serve(lab, &services)?;
        assert_reached(&Target::tcp(address, &["red"]));
        assert_reached(&Target::udp(address, &["green"]));
        Ok(())
    });
}

#[test]
fn a_client_sees_the_address_it_asked_for() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::udp("green")?);
        let (v4, v6) = (virtual_address(10, 80), virtual_address6(0x10, 80));
        let services = [
            Service::tcp("web", v4).at(v6.ip()).endpoint(red.v4()).endpoint(red.v6()),
            Service::udp("dns", v4).at(v6.ip()).endpoint(green.v4()).endpoint(green.v6()),
        ];
        let _supervisor = serve(lab, &services)?;
        for address in [v4, v6, mapped(v4)] {
            assert_eq!(TcpStream::connect(address)?.peer_addr()?, address);
            let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            assert_eq!(socket.peer_addr()?, address);
        }
        Ok(())
    });
}

#[test]
fn a_service_without_an_endpoint_fails_the_connection_as_configured() {
    isolated(|lab| {
        let answers = [
            ("refuse", ErrorKind::ConnectionRefused),
            ("unreachable", ErrorKind::HostUnreachable),
            ("deny", ErrorKind::PermissionDenied),
        ];
        let at = |host| SocketAddr::new(virtual_address(host, 80).ip(), 80);
        let services: Vec<Service> = answers
            .iter()
            .zip(1..)
            .map(|((answer, _), host)| Service::tcp(answer, at(host)).no_endpoint(answer))
            .collect();
        // Somebody listens at the very addresses: a connection that slips through succeeds.
        let _listeners: Vec<TcpListener> =
            (1..=3).map(|host| TcpListener::bind(at(host))).collect::<Result<_, _>>()?;
        let _supervisor = serve(lab, &services)?;
        for ((answer, kind), host) in answers.into_iter().zip(1..) {
            for address in [at(host), mapped(at(host))] {
                let error = TcpStream::connect(address).expect_err("there is no endpoint");
                assert_eq!(error.kind(), kind, "{answer} at {address}: {error}");
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_not_a_frontend_is_not_touched() {
    isolated(|lab| {
        let _scene = Scene::start(lab)?;
        let other_port = SocketAddr::new(WEB.ip(), 81);
        for address in [virtual_address(11, 80), other_port] {
            let _own = Backend::tcp_at("own", &[address])?;
            for address in [address, mapped(address)] {
                assert_reached(&Target::tcp(address, &["own"]));
                assert_eq!(TcpStream::connect(address)?.peer_addr()?, address);
            }
        }
        // The service is TCP: UDP to its address and port is somebody else's.
        let _own = Backend::udp_at("own", &[WEB])?;
        assert_reached(&Target::udp(WEB, &["own"]));
        Ok(())
    });
}

#[test]
fn a_process_outside_the_cgroup_is_not_governed() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let connect = |lab: &holdfast_lab::Lab| -> Result<Ended, Box<dyn std::error::Error>> {
            let mut bash = lab.beside("bash")?;
            bash.args(["-c", &format!("read -r line < /dev/tcp/{}/{}; echo $line", WEB.ip(), 80)]);
            Ok(Ended::run(&mut bash)?)
        };
        let outside = connect(lab)?;
        assert!(outside.stderr.contains("refused"), "{outside:?}");
        // The same words reach somebody when somebody is there: it is not bash that fails.
        let _own = Backend::tcp_at("own", &[WEB])?;
        assert_eq!(connect(lab)?.stdout.trim(), "own");
        scene.assert_governed();
        Ok(())
    });
}

#[test]
fn a_listening_socket_accepts_as_ever() {
    isolated(|lab| {
        let scene = Scene::start(lab)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, peer) = listener.accept()?;
        assert_eq!((client.local_addr()?, server.peer_addr()?), (peer, peer));
        assert_eq!(client.peer_addr()?, listener.local_addr()?);
        scene.assert_governed();
        TestResult::Ok(())
    });
}
