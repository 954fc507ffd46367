//! An HTTP server that says how an endpoint is.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_lab::LabError;

/// How long a client may take to ask; only a client that hangs takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that answers every request with one status, stopped when dropped.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    says: Arc<Says>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Says {
    status: AtomicU16,
    asked: AtomicU64,
    stopped: AtomicBool,
}

impl HealthServer {
    /// Listens at `address`, and answers 200.
    ///
    /// # Errors
    ///
    /// When it is taken.
    pub fn at(address: SocketAddr) -> Result<Self, LabError> {
        let listener = TcpListener::bind(address);
        let listener = listener.map_err(LabError::system(format!("listen at {address}")))?;
        let says = Says {
            status: AtomicU16::new(200),
            asked: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        };
        let says = Arc::new(says);
        let thread = std::thread::spawn({
            let says = Arc::clone(&says);
            move || says.serve(&listener)
        });
        Ok(Self { address, says, thread: Some(thread) })
    }

    /// Answers with `status` from now on.
    pub fn say(&self, status: u16) {
        self.says.status.store(status, Ordering::SeqCst);
    }

    /// How often it has been asked.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.says.asked.load(Ordering::SeqCst)
    }
}

impl Says {
    fn serve(&self, listener: &TcpListener) {
        while !self.stopped.load(Ordering::SeqCst) {
            if let Ok((connection, _)) = listener.accept() {
                // A client that is gone is not this server's concern.
                let _answered = self.answer(connection);
            }
        }
    }

    fn answer(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let status = self.status.load(Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let body = "so it is\n";
        write!(connection, "HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        self.says.stopped.store(true, Ordering::SeqCst);
        // It waits for a client; this is one.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _joined = thread.join();
        }
    }
}
