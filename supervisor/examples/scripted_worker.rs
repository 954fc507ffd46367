//! A child that keeps to the protocol, or breaks it as its script says: the supervisor's tests run it
//! in place of `holdfast-worker`. A worker's script is its configuration file, a loader's the file
//! called like its binary with `.script` behind. Both are lists of words:
//!
//! | words | what it does wrong |
//! |---|---|
//! | `at MESSAGE do FAULT` | makes this [`Fault`] when it is to say or has read this message, once |
//! | `aloud` | nothing: it writes to the log what it is told |
//! | `exit` | ends at once |
//! | `refuse` | refuses the estate |
//! | `stuck` | reports no progress |
//! | `flood` | never stops talking |
//! | `linger` | outlives its supervisor |
//! | `elsewhere` | says how to recognise something else than what it has put in force |
//! | `overdue` | says with each heartbeat that the time of endpoints has come |
//! | `once` | empties the script, so that who reads it next does nothing wrong |
//!
//! With a message that it reads, it can only end, stop, or be short of descriptors.
//!
//! Its loader makes the smallest estate the kernel accepts: a map, and a program that allows every
//! connection.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast::channel::{Channel, ChannelError};
use holdfast_bpf::{link, object};
use holdfast_lab::handover::{Fault, Said, Then, Told, sample};
use holdfast_lab::pass;
use holdfast_protocol::handover::{
    CHILD_DESCRIPTOR, ConfigReport, ConfigState, FromChild, HEARTBEAT_INTERVAL, Offer, Origin,
    Seen, ToChild,
};
use holdfast_protocol::manifest::{Entry, Kind, Shape};
use holdfast_protocol::{pin, wire};
use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use uds::nonblocking::UnixSeqpacketConn;

const FOREVER: Duration = Duration::from_secs(3600);
const MAP: &str = "HEADS";
const PROGRAM: &str = "hf_connect4";
/// `BPF_CGROUP_INET4_CONNECT`.
const CONNECT4: u32 = 10;
/// What every script that ends it ends it with.
const EXIT: i32 = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // SAFETY: the supervisor left its socket there, and nothing else in this process owns it.
    let channel = Channel::new(unsafe { UnixSeqpacketConn::from_raw_fd(CHILD_DESCRIPTOR) });
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name).expect("always given");
        arguments[at + 1].clone()
    };
    match arguments[1].as_str() {
        "serve" => {
            let peer = Peer::new(channel, Path::new(&option("--config")));
            Worker { peer, epoch: 0, progress: 0 }.serve();
        }
        "close" => close(&mut Peer::new(channel, Path::new(&format!("{}.script", arguments[0])))),
        verb => {
            let mut peer = Peer::new(channel, Path::new(&format!("{}.script", arguments[0])));
            let place = (option("--instance"), option("--bpffs").into(), option("--cgroup").into());
            if verb == "load" { load(&mut peer, place) } else { clear(&mut peer, place) }
        }
    }
}

/// Says and hears what a child does, apart from what its script says.
struct Peer {
    channel: Channel,
    words: Vec<String>,
    /// The message and the fault that goes with it, until it was made.
    planned: Option<(String, Fault)>,
}

impl Peer {
    fn new(channel: Channel, script: &Path) -> Self {
        let text = fs::read_to_string(script).unwrap_or_default();
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let planned = words.iter().position(|word| word == "at").map(|at| {
            let fault = words[at + 3].parse().expect("a script names a fault");
            (words[at + 1].clone(), fault)
        });
        let peer = Self { channel, words, planned };
        if peer.is("once") {
            fs::write(script, "").expect("a script can be emptied");
        }
        if peer.is("exit") {
            std::process::exit(EXIT);
        }
        peer
    }

    fn is(&self, word: &str) -> bool {
        self.words.iter().any(|found| found == word)
    }

    /// Whether something is to go wrong at the message called `name`.
    fn plans(&self, name: &str) -> bool {
        self.planned.as_ref().is_some_and(|(planned, _)| planned == name)
    }

    fn say(&mut self, message: &FromChild, descriptors: &[BorrowedFd<'_>]) {
        match self.fault_at(Said::from(message).name()) {
            None => self.channel.send(message, descriptors).expect("the supervisor listens"),
            Some(fault) => self.commit(fault, message, descriptors),
        }
    }

    /// What is to go wrong now, once.
    fn fault_at(&mut self, name: &str) -> Option<Fault> {
        let is_due =
            |(message, fault): &mut (String, Fault)| message == name && *fault != Fault::Early;
        let (_, fault) = self.planned.take_if(is_due)?;
        announce(name, fault);
        Some(fault)
    }

    fn commit(&self, fault: Fault, message: &FromChild, descriptors: &[BorrowedFd<'_>]) {
        let packet = wire::encode(message).expect("what a child says is small");
        let then = fault.commit(self.channel.as_fd(), &packet, descriptors);
        match then.expect("the supervisor listens") {
            Then::GoesOn => {}
            Then::Ends => std::process::exit(EXIT),
            Then::Stops => raise(Signal::SIGSTOP).expect("nobody needs permission for that"),
        }
    }

    fn hear(&mut self) -> Result<Option<(ToChild, Vec<OwnedFd>)>, ChannelError> {
        let Some((message, mut descriptors)) = self.channel.receive_with_descriptors()? else {
            return Ok(None);
        };
        if let Some((name, Fault::Early)) = &self.planned {
            let early = sample(name.parse().expect("a script names a message"));
            announce(name, Fault::Early);
            self.planned = None;
            self.channel.send(&early, &[]).expect("the supervisor listens");
        }
        if self.is("aloud") {
            log(&format!("told {}", Told::from(&message).name()));
        }
        match self.fault_at(Told::from(&message).name()) {
            None => {}
            Some(Fault::DiesBefore) => std::process::exit(EXIT),
            Some(Fault::Stops) => raise(Signal::SIGSTOP).expect("nobody needs permission for that"),
            Some(Fault::TooFew) => drop(descriptors.pop()),
            Some(fault) => panic!("{fault:?} is nothing that a reader does"),
        }
        Ok(Some((message, descriptors)))
    }
}

/// For whoever waits for it.
fn announce(message: &str, fault: Fault) {
    log(&format!("{fault:?} at {message}"));
}

fn log(line: &str) {
    // In one piece: the supervisor writes to the same file.
    let line = format!("{line}\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("it can be written");
}

fn welcome() -> FromChild {
    sample(Said::Welcome)
}

struct Worker {
    peer: Peer,
    epoch: u64,
    progress: u64,
}

impl Worker {
    fn is(&self, word: &str) -> bool {
        self.peer.is(word)
    }

    fn say(&mut self, word: &FromChild) {
        self.peer.say(word, &[]);
    }

    fn serve(mut self) {
        if self.is("linger") {
            prctl::set_pdeathsig(None).expect("nobody needs permission for that");
        }
        loop {
            let beat = Instant::now() + HEARTBEAT_INTERVAL;
            while self.peer.channel.wait(beat).is_ok() {
                match self.peer.hear() {
                    Ok(Some((word, descriptors))) => self.hear(word, descriptors.len()),
                    Ok(None) => {}
                    Err(_) if self.is("linger") => std::thread::sleep(FOREVER),
                    Err(_) => return,
                }
            }
            if !self.is("stuck") {
                self.progress += 1;
            }
            self.say(&FromChild::Heartbeat { epoch: self.epoch, progress: self.progress });
            if self.is("overdue") && self.epoch > 0 {
                self.say(&sample(Said::Overdue));
            }
        }
    }

    fn hear(&mut self, word: ToChild, descriptors: usize) {
        match word {
            ToChild::Hello { .. } => self.say(&welcome()),
            ToChild::Offer(_) if self.is("refuse") => self.say(&sample(Said::Refused)),
            ToChild::Offer(offer) => self.take(&offer, descriptors),
            ToChild::Release => self.say(&FromChild::Released),
            ToChild::Grant { epoch } => {
                self.epoch = epoch;
                self.say(&FromChild::Granted { epoch });
                self.say(&FromChild::Config(self.report()));
                let digest = match self.is("elsewhere") {
                    true => "ab".repeat(32),
                    false => self.report().digest,
                };
                self.say(&FromChild::Seen(Seen { digest, mark: "1".to_owned() }));
                let news = [
                    Said::Kept,
                    Said::NotKept,
                    Said::SnapshotUnusable,
                    Said::Overdue,
                    Said::Attach,
                ];
                for news in news {
                    let is_asked =
                        news == Said::Attach && self.peer.plans(Told::NotAttached.name());
                    if self.peer.plans(news.name()) || is_asked {
                        self.say(&sample(news));
                    }
                }
                while self.is("flood") {
                    let beat = FromChild::Heartbeat { epoch, progress: self.progress };
                    // A full socket is what flooding ends in.
                    let _full = self.peer.channel.send(&beat, &[]);
                    self.progress += 1;
                }
            }
            ToChild::Leave => std::process::exit(0),
            ToChild::Query { id, body } => self.say(&FromChild::Answer { id, body }),
            ToChild::InForce(_)
            | ToChild::Seen(_)
            | ToChild::History(_)
            | ToChild::Keep
            | ToChild::Vitals(_)
            | ToChild::Attached
            | ToChild::NotAttached { .. } => {}
            ToChild::Accept { .. } => panic!("a worker offers nothing"),
        }
    }

    fn take(&mut self, offer: &Offer, descriptors: usize) {
        let listed = offer.entries.len();
        if listed != descriptors {
            let reason = format!("{descriptors} of {listed} descriptors arrived");
            return self.say(&FromChild::Refused { reason });
        }
        assert!(offer.entries.iter().all(|entry| entry.shape.kind() == Kind::Map));
        self.say(&FromChild::Accepted { index: offer.index });
        if offer.index + 1 == offer.of {
            self.say(&sample(Said::Trying));
            self.say(&FromChild::Ready { config: self.report() });
        }
    }

    /// Of a configuration without a name, which is never kept, unless that is to go wrong.
    fn report(&self) -> ConfigReport {
        let report = ConfigReport {
            state: ConfigState::InForce,
            services: 3,
            endpoints: 4,
            ..ConfigReport::default()
        };
        match sample(Said::Trying) {
            FromChild::Trying { digest } if self.peer.plans(Told::Keep.name()) => {
                ConfigReport { digest, origin: Origin::Disk, ..report }
            }
            _ => report,
        }
    }
}

type Place = (String, PathBuf, PathBuf);

fn load(peer: &mut Peer, place: Place) {
    greet(peer);
    if peer.is("refuse") {
        return peer.say(&sample(Said::Refused), &[]);
    }
    let (map, link) = estate(peer, place);
    let about = object::map_info(map.as_fd()).expect("a map");
    let map_entry = Entry { name: MAP.into(), id: about.id, shape: Shape::Map(about.shape) };
    let about = object::link_info(link.as_fd()).expect("a link");
    let attachment = about.cgroup.expect("a cgroup link");
    let shape = Shape::Link {
        attach_type: attachment.attach_type,
        program_id: about.program_id,
        cgroup_id: attachment.cgroup_id,
    };
    let link_entry = Entry { name: PROGRAM.into(), id: about.id, shape };
    let offer = Offer { index: 0, of: 1, entries: vec![map_entry, link_entry] };
    peer.say(&FromChild::Offer(offer), &[map.as_fd(), link.as_fd()]);
    let accepted = await_word(peer);
    assert!(matches!(accepted, ToChild::Accept { .. }), "{accepted:?}");
}

fn close(peer: &mut Peer) {
    greet(peer);
    let offer = await_word(peer);
    assert!(matches!(offer, ToChild::Offer(_)), "{offer:?}");
    let word = if peer.is("refuse") { Said::Refused } else { Said::Closed };
    peer.say(&sample(word), &[]);
}

fn greet(peer: &mut Peer) {
    let greeting = await_word(peer);
    assert!(matches!(greeting, ToChild::Hello { .. }), "{greeting:?}");
    peer.say(&welcome(), &[]);
}

fn await_word(peer: &mut Peer) -> ToChild {
    loop {
        peer.channel.wait(Instant::now() + FOREVER).expect("the supervisor lives");
        if let Some((word, _)) = peer.hear().expect("the supervisor talks") {
            return word;
        }
    }
}

/// What is pinned, or a new one. A link that was detached is replaced.
fn estate(peer: &mut Peer, (instance, bpffs, cgroup): Place) -> (OwnedFd, OwnedFd) {
    let path = |kind, name| pin::path(&bpffs, &instance, kind, name);
    let map = object::get(&path(Kind::Map, MAP)).unwrap_or_else(|_| {
        let map = create_map();
        pin_to(&path(Kind::Map, MAP), map.as_fd());
        map
    });
    let at = path(Kind::Link, PROGRAM);
    let is_attached = |link: &OwnedFd| {
        let about = object::link_info(link.as_fd()).expect("a link");
        about.cgroup.is_some_and(|attachment| attachment.cgroup_id != 0)
    };
    if let Ok(link) = object::get(&at)
        && is_attached(&link)
    {
        peer.say(&sample(Said::Repaired), &[]);
        return (map, link);
    }
    let cgroup = fs::File::open(cgroup).expect("the cgroup exists");
    let program = pass::program(PROGRAM, CONNECT4, None).expect("the kernel takes it");
    let link = link::create(program.as_fd(), cgroup.as_fd(), CONNECT4).expect("attaches");
    let _none = fs::remove_file(&at);
    pin_to(&at, link.as_fd());
    (map, link)
}

fn pin_to(path: &Path, descriptor: BorrowedFd<'_>) {
    fs::create_dir_all(path.parent().expect("has one")).expect("is a bpffs");
    object::pin(descriptor, path).expect("pins");
}

fn clear(peer: &mut Peer, (instance, bpffs, _): Place) {
    greet(peer);
    if peer.is("refuse") {
        return peer.say(&sample(Said::Refused), &[]);
    }
    let path = pin::path(&bpffs, &instance, Kind::Link, PROGRAM);
    if let Ok(link) = object::get(&path) {
        link::detach(link.as_fd()).expect("detaches");
    }
    // A former one may have ended half-way.
    let _none = fs::remove_dir_all(pin::instance_directory(&bpffs, &instance));
    // The directory of all instances may have others.
    let _shared = fs::remove_dir(bpffs.join(pin::ROOT));
    let items = vec!["link hf_connect4".to_owned(), "map HEADS".to_owned()];
    peer.say(&FromChild::Cleared { items, last: true }, &[]);
}

/// `union bpf_attr` for `BPF_MAP_CREATE`, its beginning.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

fn create_map() -> OwnedFd {
    // BPF_MAP_TYPE_ARRAY
    let attribute = MapCreate { map_type: 2, key_size: 4, value_size: 8, max_entries: 1, flags: 0 };
    let (attribute, size) = (&raw const attribute, size_of::<MapCreate>());
    // SAFETY: BPF_MAP_CREATE, whose attribute is a live struct of `size` bytes without addresses.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 0, attribute, size) };
    assert!(result >= 0, "a map: {}", std::io::Error::last_os_error());
    let raw = i32::try_from(result).expect("descriptors are small numbers");
    // SAFETY: the kernel has just made this descriptor.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
