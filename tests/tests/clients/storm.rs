//! A supervisor whose worker is killed every 200 ms as long as clients run.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use holdfast_lab::{Lab, Service, Supervisor, TestResult, render};
use holdfast_tests::rows::counted;
use holdfast_tests::scene::FILE;

use crate::program::{Program, Report};

/// Time between two kills.
const KILL_INTERVAL: Duration = Duration::from_millis(200);

/// Kills a test waits for: four seconds of them, less than a run of wrk or pgbench.
const KILLS: u32 = 20;

/// Most kills in one run of a client, which is done in some seconds: a client that hangs has failed.
const MOST_KILLS_A_RUN: u32 = 300;

/// The service's name in each of these tests.
const SERVICE: &str = "real";

/// One service, and the faults against who serves it.
#[derive(Debug)]
pub struct Storm<'a> {
    lab: &'a Lab,
    supervisor: Supervisor,
    kills: u32,
    /// When the last kill was, whoever ran at that time: clients may be done sooner than the next is due.
    last_kill: Instant,
    counted_before: u64,
    connections: u64,
}

/// Where a server listens: nowhere else, so that a connection that is not governed is refused.
#[must_use]
pub const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A service at the TCP address `frontend` that leads to `endpoint`.
#[must_use]
pub fn tcp(frontend: SocketAddr, endpoint: SocketAddr) -> Service {
    Service::tcp(SERVICE, frontend).endpoint(endpoint)
}

/// The same for UDP.
#[must_use]
pub fn udp(frontend: SocketAddr, endpoint: SocketAddr) -> Service {
    Service::udp(SERVICE, frontend).endpoint(endpoint)
}

impl<'a> Storm<'a> {
    /// Starts to serve `service`, without a kill yet.
    ///
    /// # Errors
    ///
    /// When no worker is granted.
    pub fn start(lab: &'a Lab, service: &Service) -> Result<Self, Box<dyn std::error::Error>> {
        let file = lab.write(FILE, render(std::slice::from_ref(service)))?;
        let supervisor = lab.supervisor(&file).start()?;
        let counted_before = counted(lab, SERVICE, "connections")?;
        let last_kill = Instant::now();
        Ok(Self { lab, supervisor, kills: 0, last_kill, counted_before, connections: 0 })
    }

    /// Whether there were kills enough for a test.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.kills >= KILLS
    }

    /// Kills workers until each of `clients` has ended, and gives what they said.
    ///
    /// # Errors
    ///
    /// When a client does not end, or it outlives a minute of kills.
    pub fn blow(
        &mut self,
        clients: Vec<Program>,
    ) -> Result<Vec<Report>, Box<dyn std::error::Error>> {
        let before = self.kills;
        for client in &clients {
            while !client
                .has_ended_within(KILL_INTERVAL.saturating_sub(self.last_kill.elapsed()))?
            {
                self.last_kill = Instant::now();
                // Between two workers there is none to kill; there are as many as there were kills.
                let victim = self.supervisor.workers().into_iter().next();
                self.kills += u32::from(victim.is_some_and(|pid| self.supervisor.kill_worker(pid)));
                if self.kills - before > MOST_KILLS_A_RUN {
                    return Err(format!("it does not end: {:?}", client.printed()?).into());
                }
            }
        }
        Ok(clients.into_iter().map(Program::report).collect::<Result<_, _>>()?)
    }

    /// Counts connections that a client says it has made.
    pub const fn add(&mut self, connections: u64) {
        self.connections += connections;
    }

    /// The connections were governed, every one, while the workers were killed.
    ///
    /// # Errors
    ///
    /// When the supervisor does not answer.
    ///
    /// # Panics
    ///
    /// When a connection is missing from the service's counter, or a kill or an attachment is.
    pub fn assert_survived(mut self, least_connections: u64) -> TestResult {
        let status = self.supervisor.wait_for_grant()?;
        let counted = counted(self.lab, SERVICE, "connections")? - self.counted_before;
        let made = self.connections;
        println!("{} kills, {made} connections, {counted} governed", self.kills);
        assert!(self.kills >= KILLS, "only {} kills", self.kills);
        assert!(status.epoch > u64::from(KILLS) / 2, "workers were replaced: {status:?}");
        assert!(made >= least_connections, "only {made} connections");
        assert!(counted >= made, "{made} connections were made, {counted} of them governed");
        assert!(status.links.iter().all(|link| link.ok), "{status:?}");
        Ok(())
    }
}
