//! Whoever connects to where metrics are served: scrapers, those who are none, and those who are too many.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use holdfast_lab::isolated;
use holdfast_tests::scrape::{METRICS, NoAnswer, get, samples, send};

use crate::metrics::{CONNECTIONS, scraped, served};
use crate::scene::{FILE, Scene};

#[test]
fn whoever_asks_otherwise_is_told_what_there_is() {
    isolated(|lab| {
        let _scene = served(lab)?;
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(100_000));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 404),
            ("GET /metrics/x HTTP/1.1\r\n\r\n", 404),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
            ("DELETE /healthz HTTP/1.1\r\n\r\n", 405),
            ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n", 400),
            (&long, 431),
            (&many, 431),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", 200),
            ("GET /metrics HTTP/1.0\r\n\r\n", 200),
            ("GET /metrics?x=y HTTP/1.1\r\n\r\n", 200),
        ] {
            let answer = send(METRICS, request.as_bytes()).map_err(|error| format!("{error:?}"))?;
            assert_eq!(answer.status, status, "{request:.40}: {answer:?}");
            assert!(answer.head.contains("Connection: close"), "{answer:?}");
            assert_eq!(answer.body.is_empty(), request.starts_with("HEAD"), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn clients_that_stay_silent_hold_nobody_up_for_long() {
    isolated(|lab| {
        let scene = served(lab)?;
        let epoch = scene.supervisor.status()?.epoch;
        // More than are served at a time, half of them with a request that never ends.
        let mut silent: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(METRICS)).collect::<Result<_, _>>()?;
        for stream in silent.iter_mut().skip(1).step_by(2) {
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
        }
        let one = std::thread::spawn(scraped);
        let other = std::thread::spawn(scraped);
        for scraper in [one, other] {
            assert!(scraper.join().expect("answered").contains_key("holdfast_epoch"));
        }
        for mut stream in silent {
            let mut said = String::new();
            // It is told, or hears nothing more.
            let _reset = stream.read_to_string(&mut said);
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        }
        assert_eq!(scene.supervisor.status()?.epoch, epoch, "the worker serves on");
        Ok(())
    });
}

#[test]
fn two_scrapers_get_the_same() {
    isolated(|lab| {
        let _scene = served(lab)?;
        let scrapers: Vec<_> = (0..2)
            .map(|_| std::thread::spawn(|| (0..50).map(|_| scraped()).collect::<Vec<_>>()))
            .collect();
        for scraper in scrapers {
            let all = scraper.join().expect("answered");
            assert!(all.iter().all(|samples| samples[CONNECTIONS] == 1.0));
        }
        Ok(())
    });
}

#[test]
fn a_port_in_use_is_refused_and_an_uninstall_frees_it() {
    isolated(|lab| {
        let taken = TcpListener::bind(METRICS)?;
        let file = lab.write(FILE, "services: []\n")?;
        let refused = lab.supervisor(&file).with("--metrics", METRICS.to_string()).run()?;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(refused.stderr.contains("127.0.0.1:9150"), "{refused:?}");
        assert!(refused.stderr.contains("ss -ltnp 'sport = :9150'"), "{refused:?}");
        drop(taken);

        let mut scene = served(lab)?;
        scraped();
        let ended = lab.ctl(&["uninstall"])?;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        scene.supervisor.ended()?;
        let gone = get(METRICS, "/metrics");
        assert!(matches!(gone, Err(NoAnswer::Refused(_))), "{gone:?}");
        Ok(())
    });
}

#[test]
fn without_the_option_nothing_listens() {
    isolated(|lab| {
        let _scene = Scene::start(lab)?;
        let nobody = get(METRICS, "/metrics");
        assert!(matches!(nobody, Err(NoAnswer::Refused(_))), "{nobody:?}");
        Ok(())
    });
}

#[test]
fn ipv6_is_served_too() {
    isolated(|lab| {
        let _scene = Scene::start_with(lab, "--metrics", "[::1]:9150")?;
        let address = "[::1]:9150".parse()?;
        let answer = get(address, "/metrics").map_err(|error| format!("{error:?}"))?;
        assert_eq!(samples(&answer.body)[CONNECTIONS], 1.0);
        Ok(())
    });
}
