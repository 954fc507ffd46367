//! Clients that keep opening connections to virtual addresses and count every single one.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::backend::banner;
use crate::random::Random;

/// How long a connection may take to open and to be greeted. On loopback both take microseconds;
/// this only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client sends in a datagram.
const DATAGRAM: &[u8] = b"holdfast?";

/// TCP, or UDP with connected sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Where to connect, and who may answer.
#[derive(Clone, Debug)]
pub struct Target {
    /// The virtual address.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// Names of the backends that are its endpoints.
    pub backends: Vec<String>,
}

/// How one connection went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It reached this backend.
    Reached(String),
    /// It left the governance: nobody was at the virtual address itself (nobody ever is), or
    /// somebody answered who is not an endpoint.
    Ungoverned(String),
    /// It was opened and then reset.
    Reset(String),
    /// Anything else that kept it from being served.
    Failed(String),
}

impl Target {
    /// A TCP service with these backends.
    #[must_use]
    pub fn tcp(address: SocketAddr, backends: &[&str]) -> Self {
        let backends = backends.iter().map(|name| (*name).to_owned()).collect();
        Self { address, transport: Transport::Tcp, backends }
    }

    /// A UDP service with these backends.
    #[must_use]
    pub fn udp(address: SocketAddr, backends: &[&str]) -> Self {
        Self { transport: Transport::Udp, ..Self::tcp(address, backends) }
    }
}

/// Opens one connection to `target`, hears who answers, and closes it.
#[must_use]
pub fn attempt(target: &Target) -> Attempt {
    let answer = match target.transport {
        Transport::Tcp => greet(target.address),
        Transport::Udp => ask(target.address),
    };
    match answer {
        Ok(name) if target.backends.contains(&name) => Attempt::Reached(name),
        Ok(name) => Attempt::Ungoverned(format!("{} was answered by `{name}`", target.address)),
        Err(error) if is_escape(&error) => {
            Attempt::Ungoverned(format!("{}: {error}", target.address))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {
            Attempt::Reset(format!("{}: {error}", target.address))
        }
        Err(error) => Attempt::Failed(format!("{}: {error}", target.address)),
    }
}

/// Whether an error is what a virtual address itself answers with: nobody listens there, and no
/// route leads there.
fn is_escape(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    )
}

fn greet(address: SocketAddr) -> io::Result<String> {
    let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    // Closing with a reset leaves no port in TIME_WAIT: ephemeral ports do not run out.
    let reset = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&connection, sockopt::Linger, &reset)?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(DATAGRAM)?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..length]);
    let name = text.lines().next().unwrap_or_default().to_owned();
    let expected = [banner(&name).as_bytes(), DATAGRAM].concat();
    let whole = answer[..length] == expected[..];
    if whole { Ok(name) } else { Err(io::Error::new(ErrorKind::InvalidData, "a damaged answer")) }
}

/// How many clients, how fast.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients at once.
    pub clients: usize,
    /// How long each rests after a connection, so that the machine's few processors are left to the
    /// processes under test too.
    pub rest: Duration,
    /// Which target is next is drawn from this.
    pub seed: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that reached an endpoint.
    pub reached: u64,
    /// Connections that failed, those that were reset included.
    pub failed: u64,
    /// Connections that left the governance.
    pub ungoverned: u64,
    /// Connections that reached an endpoint, by its name.
    pub by_backend: BTreeMap<String, u64>,
    /// The first connection that did not reach one.
    pub first_trouble: Option<String>,
}

impl Tally {
    /// All connections.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.reached + self.failed + self.ungoverned
    }

    /// Counts one more.
    pub fn add(&mut self, attempt: Attempt) {
        let trouble = match attempt {
            Attempt::Reached(name) => {
                self.reached += 1;
                *self.by_backend.entry(name).or_default() += 1;
                return;
            }
            Attempt::Ungoverned(trouble) => {
                self.ungoverned += 1;
                trouble
            }
            Attempt::Reset(trouble) | Attempt::Failed(trouble) => {
                self.failed += 1;
                trouble
            }
        };
        self.first_trouble.get_or_insert(trouble);
    }
}

/// Client threads at work, stopped when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts clients that connect to one of `targets` after the other, drawn at random.
    #[must_use]
    pub fn start(targets: &[Target], shape: Shape) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let clients = (0..shape.clients).map(|client| {
            let (targets, stop, tally) = (targets.to_vec(), Arc::clone(&stop), Arc::clone(&tally));
            let mut random = Random::new(shape.seed.wrapping_add(client as u64));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let target = &targets[draw(&mut random, targets.len())];
                    let attempt = attempt(target);
                    lock(&tally).add(attempt);
                    std::thread::sleep(shape.rest);
                }
            })
        });
        let clients = clients.collect();
        Self { stop, tally, clients }
    }

    /// What has been counted until now.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Lets every client finish its connection, and gives the final count.
    ///
    /// # Panics
    ///
    /// When a client did.
    #[must_use]
    pub fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("a client does not panic");
        }
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn draw(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).expect("below a usize")
}

/// A client that panicked between two additions has left a tally that is still right.
fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backend, eventually, isolated};

    #[test]
    fn connections_that_reach_their_backend_are_counted_by_its_name() {
        isolated(|_| {
            let (red, blue) = (Backend::tcp("red")?, Backend::udp("blue")?);
            let targets = [
                Target::tcp(red.v4(), &["red"]),
                Target::tcp(red.v6(), &["red"]),
                Target::udp(blue.v4(), &["blue"]),
                Target::udp(blue.v6(), &["blue"]),
            ];
            let shape = Shape { clients: 2, rest: Duration::ZERO, seed: 1 };
            let load = Load::start(&targets, shape);
            eventually("1,000 connections", || {
                let tally = load.so_far();
                if tally.connections() >= 1000 { Ok(()) } else { Err(tally.connections()) }
            })?;
            let tally = load.finish();
            assert_eq!((tally.failed, tally.ungoverned), (0, 0), "{tally:?}");
            assert_eq!(tally.by_backend.keys().collect::<Vec<_>>(), ["blue", "red"]);
            Ok(())
        });
    }

    #[test]
    fn whoever_else_answers_and_nobody_at_all_are_ungoverned() {
        isolated(|_| {
            let red = Backend::tcp("red")?;
            let blue_only = Target::tcp(red.v4(), &["blue"]);
            assert!(matches!(attempt(&blue_only), Attempt::Ungoverned(_)));
            let nobody = Target::tcp("127.64.0.1:80".parse()?, &["red"]);
            assert!(matches!(attempt(&nobody), Attempt::Ungoverned(_)));
            let nobody = Target::udp("127.64.0.1:80".parse()?, &["red"]);
            assert!(matches!(attempt(&nobody), Attempt::Ungoverned(_)));
            let no_route = Target::tcp("[fd96::1]:80".parse()?, &["red"]);
            assert!(matches!(attempt(&no_route), Attempt::Ungoverned(_)));
            Ok(())
        });
    }

    #[test]
    fn a_connection_that_is_reset_is_told_from_one_that_is_refused() {
        isolated(|_| {
            let rude = std::net::TcpListener::bind("127.0.0.1:0")?;
            let target = Target::tcp(rude.local_addr()?, &["red"]);
            let closer = std::thread::spawn(move || {
                let (connection, _) = rude.accept()?;
                let reset = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&connection, sockopt::Linger, &reset).map_err(io::Error::from)
            });
            let attempt = attempt(&target);
            assert!(matches!(attempt, Attempt::Reset(_)), "{attempt:?}");
            closer.join().expect("the closer does not panic")?;
            Ok(())
        });
    }

    #[test]
    fn a_server_that_closes_without_a_word_is_not_an_endpoint() {
        isolated(|_| {
            let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
            let target = Target::tcp(silent.local_addr()?, &["red"]);
            let closer = std::thread::spawn(move || silent.accept().map(drop));
            assert!(!matches!(attempt(&target), Attempt::Reached(_)));
            closer.join().expect("the closer does not panic")?;
            Ok(())
        });
    }
}
