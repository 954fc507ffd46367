//! dnsmasq and dig: a connected UDP socket for each query, from one process each and from one for
//! many.

use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use holdfast_lab::wait::holds;
use holdfast_lab::{Lab, LabError, isolated};
use holdfast_tests::scene::virtual_address;

use crate::program::{Program, Report};
use crate::storm::{Storm, local, udp};

const FRONTEND: SocketAddr = virtual_address(53, 53);
const ENDPOINT: SocketAddr = local(15353);

/// What the server knows every name of, and the address it gives (RFC 5737, for documentation).
const DOMAIN: &str = "holdfast.test";
const ADDRESS: &str = "192.0.2.53";

/// Queries of a dig that reads them from a file, and fewest of a test.
const BATCH: u64 = 200;
const LEAST: u64 = 5 * BATCH;

/// What dig says of a query that was not answered; it is not asked again.
const COMPLAINTS: [&str; 4] =
    ["timed out", "communications error", "no servers could be reached", "unexpected source"];

fn server(lab: &Lab) -> Result<Program, LabError> {
    let mut command = lab.beside("/usr/sbin/dnsmasq")?;
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-hosts"]);
    command.args(["--no-resolv", "--bind-interfaces", "--user=nobody", "--group=nogroup"]);
    command.args(["--log-facility=-", &format!("--address=/{DOMAIN}/{ADDRESS}")]);
    command.arg(format!("--listen-address={}", ENDPOINT.ip()));
    command.arg(format!("--port={}", ENDPOINT.port()));
    let server = Program::start(lab, "dnsmasq", command)?;
    // It opens its sockets for UDP and TCP at once.
    server.wait_until("dnsmasq to listen", || TcpStream::connect(ENDPOINT))?;
    Ok(server)
}

fn dig(lab: &Lab, name: &str, query: &[&str]) -> Result<Program, LabError> {
    let mut command = Command::new("dig");
    command.args([&format!("@{}", FRONTEND.ip()), "-p", &FRONTEND.port().to_string()]);
    // One packet for one query: what is lost is seen.
    command.args(["+notcp", "+tries=1", "+timeout=5"]).args(query);
    Program::start(lab, name, command)
}

/// One query.
fn one(lab: &Lab) -> Result<Program, LabError> {
    dig(lab, "dig", &[&format!("one.{DOMAIN}"), "A"])
}

/// [`BATCH`] queries, each for another name.
fn many(lab: &Lab) -> Result<Program, LabError> {
    let mut text = String::new();
    for number in 0..BATCH {
        writeln!(text, "q{number}.{DOMAIN} A").expect("a String takes every text");
    }
    let file = lab.write("queries", text)?;
    dig(lab, "dig-batch", &["-f", &file.display().to_string()])
}

/// How many queries a dig has made, if each of `queries` was answered with the address.
fn judge(queries: u64, report: &Report) -> Result<u64, String> {
    report.is_free_of(&COMPLAINTS)?;
    let count = |part: &str| report.text.matches(part).count() as u64;
    let (answers, addresses) = (count("status: NOERROR"), count(&format!("\tA\t{ADDRESS}")));
    let all = answers == queries && addresses == queries && count("status: ") == queries;
    holds(all, || format!("{answers} of {queries} answered: {}", report.text))?;
    Ok(queries)
}

#[test]
fn dnsmasq_and_dig_notice_nothing() {
    isolated(|lab| {
        let _server = server(lab)?;
        let nowhere = one(lab)?.said_in_a_moment()?;
        assert!(nowhere.complains(&COMPLAINTS), "{nowhere:?}");

        let mut storm = Storm::start(lab, &udp(FRONTEND, ENDPOINT))?;
        while !storm.is_over() {
            let reports = storm.blow(vec![many(lab)?, one(lab)?])?;
            for (queries, report) in [BATCH, 1].into_iter().zip(reports) {
                storm.add(judge(queries, &report)?);
            }
        }
        storm.assert_survived(LEAST)
    });
}

#[test]
fn what_dig_says_is_understood() {
    let said = |code, text: &str| Report { code: Some(code), text: text.to_owned() };
    let good = ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n\
                q1.holdfast.test.\t0\tIN\tA\t192.0.2.53\n";
    assert_eq!(judge(1, &said(0, good)), Ok(1));
    assert_eq!(judge(2, &said(0, &good.repeat(2))), Ok(2));
    judge(2, &said(0, good)).expect_err("one was not answered");
    judge(1, &said(9, good)).expect_err("it says it failed");
    for text in ["status: NXDOMAIN, id: 1\n", ";; connection timed out\n"] {
        judge(1, &said(0, &format!("{good}{text}"))).expect_err("one went wrong");
    }
    judge(1, &said(0, &good.replace(ADDRESS, "192.0.2.1"))).expect_err("somebody else answered");
}
