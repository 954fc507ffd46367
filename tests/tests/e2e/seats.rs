//! Sockets whose place among what is remembered of sockets another one has.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use holdfast_lab::{Backend, Service, isolated};
use holdfast_protocol::kernel::limit;
use nix::libc;

use crate::counts::wait_for;
use crate::scene::{serve, virtual_address};

const ONE: SocketAddr = virtual_address(15, 85);
const OTHER: SocketAddr = virtual_address(16, 86);

/// Sockets that are made until one has the place of another. The kernel gives each processor 4096 numbers at a
/// time, so that one place may be passed by some times.
const TRIES: u32 = 64 * limit::SOCKETS;

#[test]
fn a_socket_whose_place_is_taken_is_remembered_elsewhere_and_found_there() {
    isolated(|lab| {
        let red = Backend::udp("red")?;
        let services = [("one", ONE), ("other", OTHER)];
        let _supervisor = serve(
            lab,
            &services.map(|(name, address)| Service::udp(name, address).endpoint(red.v4())),
        )?;
        let open = |one, other| {
            wait_for(lab, "one", (one, 0))?;
            wait_for(lab, "other", (other, 0))
        };
        let holder = UdpSocket::bind("0.0.0.0:0")?;
        holder.connect(ONE)?;
        let late = sharing_a_place_with(&holder)?;
        late.connect(ONE)?;
        assert_eq!(late.peer_addr()?, ONE, "what it asked for is remembered");
        open(2, 0)?;
        drop(holder);
        open(1, 0)?;
        // The place is free by now, and what is remembered of the other one lies elsewhere all the same.
        late.connect(OTHER)?;
        assert_eq!(late.peer_addr()?, OTHER);
        open(0, 1)?;
        let third = sharing_a_place_with(&late)?;
        third.connect(ONE)?;
        open(1, 1)?;
        late.connect(red.v4())?;
        assert_eq!(late.peer_addr()?, red.v4(), "nothing is remembered of who goes there directly");
        open(1, 0)?;
        late.connect(OTHER)?;
        open(1, 1)?;
        drop((late, third));
        Ok(open(0, 0)?)
    });
}

/// A new socket that has the place of `socket`.
fn sharing_a_place_with(socket: &UdpSocket) -> io::Result<UdpSocket> {
    sharing_the_place(cookie(socket)?, || UdpSocket::bind("0.0.0.0:0"))
}

/// A new socket that has the place of the one with the number `first`.
fn sharing_the_place<S: AsRawFd>(first: u64, make: impl Fn() -> io::Result<S>) -> io::Result<S> {
    let place = |cookie| cookie % u64::from(limit::SOCKETS);
    let wanted = place(first);
    for _ in 0..TRIES {
        let other = make()?;
        if place(cookie(&other)?) == wanted {
            return Ok(other);
        }
    }
    Err(io::Error::other(format!("none of {TRIES} sockets has place {wanted}")))
}

/// The kernel's number for a socket (`SO_COOKIE`, socket(7)).
pub fn cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes 8 bytes at most, and there is room for them.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(answer)?;
    Ok(cookie)
}
