//! Long connections on which every byte is checked.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::backend::ECHO_BYTES;
use crate::error::LabError;
use crate::random::Random;

/// How long an echo may take. On loopback it takes microseconds; longer than this is a stall.
const STALL: Duration = Duration::from_secs(20);

/// Rest between two pieces, so that a stream keeps going without filling a processor.
const REST: Duration = Duration::from_millis(2);

/// A connection that sends a pseudo-random sequence in pieces of random length and expects each
/// back, until it is finished.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), String>>,
}

/// How a stream went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Bytes that came back right.
    pub bytes: u64,
    /// Why it broke, if it did: a reset, an end of file, a wrong byte or a stall.
    pub broken: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    bytes: AtomicU64,
}

impl Stream {
    /// Connects to `address`; which bytes it sends is drawn from `seed`.
    ///
    /// # Errors
    ///
    /// When it cannot connect, or is not greeted.
    pub fn open(address: SocketAddr, seed: u64) -> Result<Self, LabError> {
        let failed = || LabError::system(format!("open a long connection to {address}"));
        let connection = connect(address).map_err(failed())?;
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || exchange(connection, &mut Random::new(seed), &shared)
        });
        Ok(Self { shared, thread })
    }

    /// Bytes that have come back right until now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Finishes the piece under way and closes.
    #[must_use]
    pub fn finish(self) -> StreamEnd {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        let broken = ended.unwrap_or_else(|_| Err("its thread panicked".to_owned())).err();
        StreamEnd { bytes: self.shared.bytes.load(Ordering::Relaxed), broken }
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(STALL))?;
    connection.set_write_timeout(Some(STALL))?;
    let mut reader = BufReader::new(connection);
    let mut byte = [0];
    while byte != *b"\n" {
        reader.read_exact(&mut byte)?;
    }
    Ok(reader)
}

fn exchange(
    mut connection: BufReader<TcpStream>,
    random: &mut Random,
    shared: &Shared,
) -> Result<(), String> {
    let (mut sent, mut back) = (vec![0; ECHO_BYTES], vec![0; ECHO_BYTES]);
    while !shared.stop.load(Ordering::Relaxed) {
        let length = 1 + usize::try_from(random.below(ECHO_BYTES as u64)).expect("below a usize");
        let (sent, back) = (&mut sent[..length], &mut back[..length]);
        random.fill(sent);
        let done = shared.bytes.load(Ordering::Relaxed);
        connection.get_mut().write_all(sent).map_err(|error| trouble("sending", done, &error))?;
        connection.read_exact(back).map_err(|error| trouble("receiving", done, &error))?;
        if let Some(place) = sent.iter().zip(&*back).position(|(sent, back)| sent != back) {
            return Err(format!("byte {} came back wrong", done + place as u64));
        }
        shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
        std::thread::sleep(REST);
    }
    Ok(())
}

fn trouble(doing: &str, done: u64, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock => {
            format!("{doing} stalled for {} s after {done} bytes", STALL.as_secs())
        }
        _ => format!("{doing} failed after {done} bytes: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{Backend, eventually, isolated};

    #[test]
    fn a_stream_through_an_echo_is_whole() {
        isolated(|_| {
            let red = Backend::tcp("red")?;
            let stream = Stream::open(red.v4(), 3)?;
            eventually("a hundred kilobytes", || match stream.bytes() {
                100_000.. => Ok(()),
                bytes => Err(bytes),
            })?;
            let end = stream.finish();
            assert_eq!(end.broken, None);
            assert!(end.bytes >= 100_000);
            Ok(())
        });
    }

    #[test]
    fn a_wrong_byte_and_a_closed_connection_are_noticed() {
        isolated(|_| {
            let broken = |serve: fn(TcpStream) -> io::Result<()>| -> Result<String, LabError> {
                let listener =
                    TcpListener::bind("127.0.0.1:0").map_err(LabError::system("bind"))?;
                let address = listener.local_addr().map_err(LabError::system("ask"))?;
                let server = std::thread::spawn(move || serve(listener.accept()?.0));
                let stream = Stream::open(address, 3)?;
                server
                    .join()
                    .expect("the server does not panic")
                    .map_err(LabError::system("serve"))?;
                eventually("the stream to end", || match stream.thread.is_finished() {
                    true => Ok(()),
                    false => Err("it goes on"),
                })?;
                Ok(stream.finish().broken.unwrap_or_default())
            };
            let flipped = broken(|mut connection| {
                connection.write_all(b"liar\n")?;
                let mut bytes = [0; ECHO_BYTES];
                let length = connection.read(&mut bytes)?;
                bytes[0] ^= 1;
                connection.write_all(&bytes[..length])?;
                // What follows the flipped byte is echoed right.
                let rest = &mut connection.try_clone()?;
                io::copy(rest, &mut connection).map(drop)
            })?;
            assert_eq!(flipped, "byte 0 came back wrong");
            let closed = broken(|mut connection| connection.write_all(b"coward\n"))?;
            assert!(closed.contains("after 0 bytes"), "{closed}");
            Ok(())
        });
    }
}
