//! Clients stay with their endpoints: over worker kills, reloads and other endpoints, until their time is
//! over or their endpoint gets nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use holdfast_lab::wait::holds;
use holdfast_lab::{Backend, Service, Target, TestResult, attempt, eventually, isolated, render};

use crate::balancing::{addresses, backends, reached, reached_from, replace_worker, service};
use crate::scene::{mapped, put_in_force, serve, virtual_address, virtual_address6};

const NAMES: [&str; 4] = ["red", "green", "blue", "white"];

/// `service` with both addresses of each of `backends`; of the one called `draining` with that mark.
fn with(service: Service, backends: &[Backend], draining: Option<&str>) -> Service {
    backends.iter().fold(service, |service, backend| {
        let keys = match draining {
            Some(name) if name == backend.name() => "draining: true",
            _ => "weight: 1",
        };
        service.endpoint_with(backend.v4(), keys).endpoint_with(backend.v6(), keys)
    })
}

#[test]
fn a_client_stays_whatever_happens_until_its_endpoint_gets_nothing_new() {
    isolated(|lab| {
        let backends = backends(&NAMES)?;
        let mut supervisor = serve(lab, &[])?;
        for (policy, by) in [("round_robin", "cgroup"), ("random", "network_namespace")] {
            let text = |backends: &[Backend], draining: Option<&str>| {
                let keys = format!("policy: {policy}, affinity: {{ by: {by}, for: 1h }}");
                render(&[with(service(&keys), backends, draining)])
            };
            for address in addresses() {
                put_in_force(lab, &mut supervisor, &text(&backends[1..], None))?;
                let first = reached(address, &NAMES);
                let stays = |name: &str| (0..20).all(|_| reached(address, &NAMES) == name);
                assert!(stays(&first), "{address}, {policy}");
                replace_worker(&mut supervisor)?;
                assert!(stays(&first), "{address}, {policy}: after a kill");
                // Another endpoint comes first: the client's has another row.
                put_in_force(lab, &mut supervisor, &text(&backends, None))?;
                assert!(stays(&first), "{address}, {policy}: beside another endpoint");
                put_in_force(lab, &mut supervisor, &text(&backends, Some(&first)))?;
                let second = reached(address, &NAMES);
                assert!(second != first && stays(&second), "{address}: {first}, then {second}");
            }
        }
        Ok(())
    });
}

/// Where each of some clients, told apart by the addresses they are bound to, is sent.
fn placed() -> Result<BTreeMap<SocketAddr, String>, Box<dyn Error>> {
    let [v4, _, through_v6] = addresses();
    (1..=40)
        .map(|host| {
            let source: SocketAddr = (Ipv4Addr::new(127, 0, 1, host), 0).into();
            let name = reached_from(source, v4)?;
            // An IPv6 socket that uses IPv4 is the same client.
            assert_eq!(reached_from(mapped(source), through_v6)?, name, "{source}");
            Ok((source, name))
        })
        .collect()
}

#[test]
fn clients_of_different_addresses_are_apart_and_free_after_their_time() {
    isolated(|lab| {
        const STAY: Duration = Duration::from_secs(1);
        let backends = backends(&NAMES)?;
        let sticky = |duration| {
            let service = service(&format!("affinity: {{ by: source_address, for: {duration} }}"));
            render(&[with(service, &backends, None)])
        };
        let file = lab.write(crate::scene::FILE, sticky("1h"))?;
        let mut supervisor = lab.supervisor(&file).start()?;
        let first = placed()?;
        let used: BTreeSet<&String> = first.values().collect();
        assert_eq!(used.len(), NAMES.len(), "{first:?}");
        assert_eq!(placed()?, first);
        // From here on, each connection lets its client stay for a second only.
        put_in_force(lab, &mut supervisor, &sticky("1s"))?;
        assert_eq!(placed()?, first);
        let since = Instant::now();
        eventually("the clients' time to be over", || {
            holds(since.elapsed() > STAY, || format!("{:?}", since.elapsed()))
        })?;
        assert_ne!(placed()?, first, "nobody of 40 was sent elsewhere: 1 in 4 to the power of 40");
        Ok(())
    });
}

#[test]
fn a_connected_udp_socket_stays_too() {
    isolated(|lab| {
        let backends = NAMES.map(Backend::udp).into_iter().collect::<Result<Vec<_>, _>>()?;
        let (v4, v6) = (virtual_address(53, 53), virtual_address6(0x53, 53));
        let service = Service::udp("dns", v4).at(v6.ip()).balanced("affinity: { for: 30m }");
        let _supervisor = serve(lab, &[with(service, &backends, None)])?;
        for address in [v4, v6, mapped(v4)] {
            let target = Target::udp(address, &NAMES);
            let first = attempt(&target);
            assert!((0..20).all(|_| attempt(&target) == first), "{address}: {first:?}");
        }
        TestResult::Ok(())
    });
}
