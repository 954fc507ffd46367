//! Where scrapes of the metrics arrive. This process listens and never accepts: the worker that writes
//! does, and while there is none a scrape waits in the kernel's queue instead of failing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use crate::failure::Failure;
use crate::preflight::Missing;

/// Listens at `address`. Nothing waits for a connection: the descriptor does not block, whoever has it.
///
/// # Errors
///
/// [`Missing::Setup`], with what to do about it, when another address is needed.
pub fn listen(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let listening = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    });
    let (bound, listener) = listening.map_err(|error| {
        let what = format!("--metrics {address}: cannot listen there");
        match mend(address, error.kind()) {
            Some(mend) => Missing::Setup { what: format!("{what}: {error}"), mend }.into(),
            None => Failure::System { what, source: error },
        }
    })?;
    tracing::info!(address = %bound, "listening for scrapes");
    Ok(listener.into())
}

/// What to do about `kind`, when it is the address that is wrong.
fn mend(address: SocketAddr, kind: ErrorKind) -> Option<String> {
    let port = address.port();
    Some(match kind {
        ErrorKind::AddrInUse => format!(
            "give another port with --metrics, or end who has this one (`ss -ltnp 'sport = :{port}'` \
             shows it)"
        ),
        ErrorKind::PermissionDenied => {
            "give a port from 1024 on: holdfast has given up CAP_NET_BIND_SERVICE".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "give an address of this machine, or 0.0.0.0 or [::] for all of them".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("some port is free");
        let address = taken.local_addr().expect("bound");
        let text = listen(address).expect_err("it is taken").to_string();
        assert!(text.contains(&address.to_string()) && text.contains("ss -ltnp"), "{text}");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        // TEST-NET-1 (RFC 5737): nobody has it.
        let address = "192.0.2.1:9150".parse().expect("an address");
        let text = listen(address).expect_err("not ours").to_string();
        assert!(text.contains("an address of this machine"), "{text}");
    }
}
