//! Endpoints that are elsewhere, and endpoints that drain.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use holdfast_lab::{Backend, Lab, Service, Supervisor, TestResult, isolated, render};
use holdfast_tests::rows::rows;

use crate::balancing::{addresses, reached, service};
use crate::scene::{FILE, put_in_force};

/// Where the node of these tests is.
const HERE: &str = "node: { region: eu, zone: a, subzone: rack-7 }\n";

/// `service` with both addresses of `backend`, each with `keys`.
fn with(service: Service, backend: &Backend, keys: &str) -> Service {
    service.endpoint_with(backend.v4(), keys).endpoint_with(backend.v6(), keys)
}

fn text(service: Service) -> String {
    format!("{HERE}{}", render(&[service]))
}

fn start(lab: &Lab, service: Service) -> Result<Supervisor, holdfast_lab::LabError> {
    let file = lab.write(FILE, text(service))?;
    lab.supervisor(&file).start()
}

/// The endpoints that `holdfastctl` lists, with their states, each once.
fn states(lab: &Lab) -> Result<Vec<(String, String)>, holdfast_lab::LabError> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let all = rows(lab, "endpoints")?;
    Ok(all.iter().map(|row| (text(&row["endpoint"]), text(&row["state"]))).collect())
}

#[test]
fn connections_fail_over_to_the_nearest_and_come_back() {
    isolated(|lab| {
        const NAMES: [&str; 3] = ["near", "far", "abroad"];
        let [near, far, abroad] = NAMES.map(Backend::tcp);
        let (near, far, abroad) = (near?, far?, abroad?);
        let places = |first: &str, second: &str| {
            let service = service("locality: { mode: failover, spill_over_below: 50 }");
            let service = with(service, &abroad, "locality: { region: us }");
            let far_keys = format!("locality: {{ region: eu, zone: b }}, {second}");
            let service = with(service, &far, &far_keys);
            with(
                service,
                &near,
                &format!("locality: {{ region: eu, zone: a, subzone: rack-7 }}, {first}"),
            )
        };
        let mut supervisor = start(lab, places("weight: 1", "weight: 1"))?;
        for (first, second, expected) in [
            ("weight: 2", "weight: 1", "near"),
            ("draining: true", "weight: 1", "far"),
            ("draining: true", "weight: 0", "abroad"),
            ("weight: 1", "weight: 0", "near"),
        ] {
            put_in_force(lab, &mut supervisor, &text(places(first, second)))?;
            for address in addresses() {
                assert!(
                    (0..20).all(|_| reached(address, &NAMES) == expected),
                    "{address}: {expected}"
                );
            }
        }
        let state = |backend: &Backend, state: &str| (backend.v4().to_string(), state.to_owned());
        let states = states(lab)?;
        let expected = [state(&near, "active"), state(&far, "idle"), state(&abroad, "standby")];
        assert!(expected.iter().all(|row| states.contains(row)), "{states:?}");
        Ok(())
    });
}

#[test]
fn strict_refuses_rather_than_leave_the_locality() {
    isolated(|lab| {
        let (near, far) = (Backend::tcp("near")?, Backend::tcp("far")?);
        let places = |keys: &str| {
            let service =
                service("policy: weighted, locality: { mode: strict }").no_endpoint("deny");
            let here = "locality: { region: eu, zone: a, subzone: rack-7 }";
            let service = with(service, &near, &format!("{here}, {keys}"));
            with(service, &far, "locality: { region: eu, zone: a, subzone: rack-8 }")
        };
        let mut supervisor = start(lab, places("weight: 1"))?;
        for address in addresses() {
            assert_eq!(reached(address, &["near"]), "near");
        }
        put_in_force(lab, &mut supervisor, &text(places("draining: true")))?;
        for address in addresses() {
            let error = TcpStream::connect(address).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{address}: {error}");
        }
        Ok(())
    });
}

#[test]
fn a_draining_endpoint_keeps_what_it_has_and_gets_nothing_new() {
    isolated(|lab| {
        let (red, green) = (Backend::tcp("red")?, Backend::tcp("green")?);
        let only_red = with(service("policy: random"), &red, "weight: 1");
        let mut supervisor = start(lab, only_red)?;
        let mut old =
            addresses().map(TcpStream::connect).into_iter().collect::<Result<Vec<_>, _>>()?;
        for connection in &old {
            let mut line = String::new();
            BufReader::new(connection).read_line(&mut line)?;
            assert_eq!(line, "red\n");
        }
        let both = with(service("policy: random"), &red, "draining: true");
        put_in_force(lab, &mut supervisor, &text(with(both, &green, "weight: 1")))?;
        for address in addresses() {
            assert!((0..20).all(|_| reached(address, &["green"]) == "green"), "{address}");
        }
        for connection in &mut old {
            connection.write_all(b"still there?")?;
            let mut answer = [0; 12];
            connection.read_exact(&mut answer)?;
            assert_eq!(&answer, b"still there?");
        }
        let states = states(lab)?;
        let drains = |backend: &Backend| (backend.v4().to_string(), "draining".to_owned());
        assert!(states.contains(&drains(&red)) && !states.contains(&drains(&green)), "{states:?}");
        TestResult::Ok(())
    });
}
