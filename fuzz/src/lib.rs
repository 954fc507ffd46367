//! What each decoder has to keep to, whatever it is fed.
//!
//! A function per decoder. It takes any bytes and panics when a promise is broken; that the decoder
//! itself neither panics nor takes memory or time without bound is the first of them. The fuzzers in
//! `fuzz_targets/` and the short test in `tests/` call the same functions, so neither can check less
//! than the other.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Component, Path};

use holdfast::succession::Carried;
use holdfast_config::{Config, Diagnostics, Http, Source, Sources, limit, parse, snapshot as kept};
use holdfast_protocol::control::{Request, Response, WorkerAnswer, WorkerQuery};
use holdfast_protocol::handover::snapshot::{DIGEST_AT, hexadecimal};
use holdfast_protocol::handover::{CHILD_DESCRIPTOR, FromChild, Offer, ToChild};
use holdfast_protocol::manifest::Kind;
use holdfast_protocol::pin;
use holdfast_protocol::wire::{self, Channel, Message};
use holdfast_worker::close::message::{Answer, answers};
use holdfast_worker::serve::health_check::answer::{MAX_STATUS_LINE_BYTES, outcome};
use holdfast_worker::serve::health_check::target::Outcome;
use holdfast_worker::serve::http::request::{MAX_HEAD_BYTES, Refusal, parse as parse_request};
use sha2::{Digest, Sha256};

/// A decoder's name, that of its fuzzer and of its corpus, and what it has to keep to.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder.
pub const TARGETS: [Target; 10] = [
    ("packet", packet),
    ("body", body),
    ("configuration", configuration),
    ("configurations", configurations),
    ("instance", instance),
    ("state", state),
    ("snapshot", snapshot),
    ("request", request),
    ("answer", answer),
    ("sockets", sockets),
];

/// What stands between two files in the input of [`configurations`]: a control character, which no
/// configuration file may contain.
pub const BETWEEN_FILES: u8 = 0x1e;

/// Most files made of one input: enough for every relation between files.
const FILES: usize = 8;

/// Longest refusal of an instance's name, without what it quotes of that: two lines.
const MAX_REFUSAL_BYTES: usize = 200;

/// A packet, as it comes from a socket: it is a message of one channel at most, and a message that
/// is understood can be passed on and means the same then.
pub fn packet(packet: &[u8]) {
    let understood = [
        is_message::<ToChild>(packet),
        is_message::<FromChild>(packet),
        is_message::<Request>(packet),
        is_message::<Response>(packet),
        is_message::<WorkerQuery>(packet),
        is_message::<WorkerAnswer>(packet),
    ];
    let channels = understood.into_iter().filter(|understood| *understood).count();
    assert!(channels <= 1, "one packet is a message of {channels} channels");
}

/// The body of a message: its first byte chooses the channel, and the header is put in front, so
/// that a fuzzer need not find one. Manifests travel in two of them.
pub fn body(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let channels = [
        Channel::ToChild,
        Channel::FromChild,
        Channel::ToSupervisor,
        Channel::FromSupervisor,
        Channel::ToWorker,
        Channel::FromWorker,
    ];
    let channel = channels[usize::from(*choice) % channels.len()];
    let mut framed = vec![b'H', b'F', wire::VERSION, channel as u8];
    framed.extend_from_slice(body);
    packet(&framed);
    if let Ok(ToChild::Offer(offer)) = wire::decode(&framed) {
        check_offer(&offer);
    }
    if let Ok(FromChild::Offer(offer)) = wire::decode(&framed) {
        check_offer(&offer);
    }
}

/// One configuration file.
pub fn configuration(text: &[u8]) {
    check_configuration(&Sources::single("a.yaml", text));
}

/// The files of a directory: the input, cut at each [`BETWEEN_FILES`].
pub fn configurations(text: &[u8]) {
    let file = |(number, contents): (usize, &[u8])| {
        let name = format!("{number}.yaml");
        Source { label: format!("app.d/{name}"), name, contents: contents.to_vec() }
    };
    let files = text.splitn(FILES, |byte| *byte == BETWEEN_FILES).enumerate().map(file);
    check_configuration(&Sources::new(files.collect()));
}

/// The name of an instance: one that is accepted stays within the directory of all instances.
pub fn instance(name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    match pin::check_instance(&name) {
        Ok(()) => {
            let all = Path::new("/sys/fs/bpf").join(pin::ROOT);
            let path = pin::path(Path::new("/sys/fs/bpf"), &name, Kind::Link, "hf_connect4");
            let below = path.strip_prefix(&all).expect("an instance is below the directory of all");
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            assert!(below.components().all(plain), "{}", path.display());
            assert_eq!(below.components().count(), 3, "{}", path.display());
        }
        Err(error) => {
            let said = error.to_string().len();
            assert!(said <= MAX_REFUSAL_BYTES + pin::MAX_INSTANCE_BYTES, "{error}");
        }
    }
}

/// The state a supervisor leaves to its successor, behind its header; the header is put in front,
/// because a fuzzer does not find a checksum. Whoever takes it over owns every descriptor it names,
/// so none is named twice, and none is a standard one.
pub fn state(body: &[u8]) {
    // As it is, which is what comes from a file that is damaged.
    check_state(body);
    check_state(&framed_state(body));
}

/// A snapshot, behind its header, which is put in front: what is accepted is written again as the
/// very same bytes, so nothing in it was overlooked, and it means what the same files on disk mean.
pub fn snapshot(body: &[u8]) {
    check_snapshot(body);
    check_snapshot(&framed_snapshot(body));
}

/// A snapshot with `body` behind its header.
#[must_use]
pub fn framed_snapshot(body: &[u8]) -> Vec<u8> {
    let mut framed = kept::encode(&Sources::default());
    framed[DIGEST_AT].copy_from_slice(&Sha256::digest(body));
    framed.extend_from_slice(body);
    framed
}

fn check_snapshot(bytes: &[u8]) {
    let Ok(sources) = kept::decode(bytes) else { return };
    assert!(kept::encode(&sources) == bytes, "it is not written as it was read");
    assert_eq!(hexadecimal(&bytes[DIGEST_AT]), sources.digest());
    // Without a file there is none for an error to be in.
    if !sources.files().is_empty() {
        check_configuration(&sources);
    }
}

/// A state with `body` behind its header.
#[must_use]
pub fn framed_state(body: &[u8]) -> Vec<u8> {
    let header = Carried::default().encode().expect("small");
    let mut framed = header[..STATE_CHECKSUM.start].to_vec();
    framed.extend_from_slice(&fnv(body).to_le_bytes());
    framed.extend_from_slice(body);
    framed
}

/// Where the checksum is in a state: behind the magic and the version.
const STATE_CHECKSUM: Range<usize> = 10..18;

/// FNV-1a, 64 bits, as the header of a state has it.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The part of a state that [`state`] takes.
#[must_use]
pub fn state_body(carried: &Carried) -> Vec<u8> {
    carried.encode().expect("small")[STATE_CHECKSUM.end..].to_vec()
}

fn check_state(bytes: &[u8]) {
    let Ok(carried) = Carried::decode(bytes) else { return };
    let descriptors = carried.descriptors();
    let distinct: HashSet<_> = descriptors.iter().collect();
    assert_eq!(distinct.len(), descriptors.len(), "{descriptors:?}");
    assert!(descriptors.iter().all(|fd| *fd > CHILD_DESCRIPTOR), "{descriptors:?}");
    assert_eq!(carried.entries.len(), carried.objects.len());
    let encoded = carried.encode().expect("what fitted fits again");
    let again = Carried::decode(&encoded).expect("what was encoded decodes");
    assert_eq!(again.encode().expect("it fitted"), encoded, "a state changes on its way");
}

fn is_message<M: Message>(packet: &[u8]) -> bool {
    let Ok(message) = wire::decode::<M>(packet) else { return false };
    // Bytes are compared, and not messages: one that holds NaN does not equal itself. The encoding
    // may be shorter than what came, because a varint may be padded.
    let encoded = wire::encode(&message).expect("what fitted a packet fits one again");
    assert!(encoded.len() <= packet.len(), "a message grows when it is passed on");
    let again = wire::decode::<M>(&encoded).expect("what was encoded decodes");
    assert_eq!(wire::encode(&again).expect("it fitted"), encoded, "a message changes on its way");
    true
}

/// Nothing about a manifest costs more than its packet.
fn check_offer(offer: &Offer) {
    assert!(offer.entries.len() <= wire::MAX_PACKET_BYTES);
    for entry in &offer.entries {
        assert!(!entry.shape.kind().to_string().is_empty());
    }
}

fn check_configuration(sources: &Sources) {
    let parsed = parse(sources);
    assert_eq!(parsed, parse(sources), "the same text means the same");
    assert_eq!(sources.digest().len(), 64);
    match parsed {
        Ok(config) => check_model(&config),
        Err(errors) => check_errors(&errors, sources),
    }
}

/// A model keeps the rules its types promise.
fn check_model(config: &Config) {
    let mut names = HashSet::new();
    let mut frontends = HashSet::new();
    for service in &config.services {
        assert!(!service.name.is_empty() && service.name.len() <= limit::MAX_SERVICE_NAME_BYTES);
        assert!(names.insert(&service.name), "two services are called {}", service.name);
        assert!(!service.addresses.is_empty() && !service.ports.is_empty(), "{service:?}");
        for address in &service.addresses {
            for port in &service.ports {
                assert!(!port.name.is_empty() && port.name.len() <= limit::MAX_PORT_NAME_BYTES);
                assert!(frontends.insert((address, port.port, port.protocol)), "{service:?}");
            }
            let served = service.endpoints_for(*address).next().is_some();
            assert_eq!(served, !service.endpoints.is_empty(), "{service:?}");
        }
        assert!(service.endpoints.iter().all(|endpoint| endpoint.weight <= limit::MAX_WEIGHT));
    }
}

/// Errors are bounded, each has a place in the text, and none can do anything to a terminal.
fn check_errors(errors: &Diagnostics, sources: &Sources) {
    assert!(errors.total() > 0, "refused without a reason");
    assert!(errors.iter().count() <= limit::MAX_DIAGNOSTICS);
    for error in errors {
        let file = sources.files().iter().find(|file| file.label == error.file());
        let contents = &file.expect("an error is in one of the files").contents;
        let breaks = contents.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        assert!((1..=breaks + 1).contains(&(error.line() as usize)), "{error}");
        assert!(error.column() >= 1 && !error.message().is_empty(), "{error}");
        assert!(!error.message().contains(char::is_control), "{error}");
        let snippet = error.snippet().map_or("", |(line, _)| line);
        assert!(!snippet.contains(char::is_control), "{error}");
    }
    assert!(!errors.pretty().is_empty());
}

/// The head of a request of a scraper: one that is understood is understood as soon as its end is there,
/// and means the same whatever follows; one whose end never comes is refused at last.
pub fn request(head: &[u8]) {
    let understood = parse_request(head);
    if let Ok(Some(_)) = understood {
        let first = (0..=head.len()).find_map(|end| match parse_request(&head[..end]) {
            Ok(None) => None,
            answer => Some(answer),
        });
        assert_eq!(first, Some(understood), "it depends on when it is looked at");
    }
    let mut long = head.to_vec();
    long.resize(long.len().max(MAX_HEAD_BYTES), b'x');
    assert_ne!(parse_request(&long), Ok(None), "it is waited for without end");
    if understood == Err(Refusal::TooLarge) {
        assert!(head.len() >= MAX_HEAD_BYTES || head.split(|byte| *byte == b'\n').count() > 64);
    }
}

/// What an endpoint answers to a health check: once it can be told what it means, more of it changes
/// nothing; it is not waited for without end; and what is said of it is short.
pub fn answer(bytes: &[u8]) {
    let http =
        Http { path: "/".to_owned(), host: None, expected_statuses: vec![200..=299, 404..=404] };
    let mut told = None;
    for end in 0..=bytes.len().min(2 * MAX_STATUS_LINE_BYTES) {
        let found = outcome(&http, &bytes[..end], false);
        assert!(told.is_none() || found == told, "it depends on when it is looked at");
        assert!(found.is_some() || end < MAX_STATUS_LINE_BYTES, "it is waited for without end");
        told = found;
    }
    let at_the_end = outcome(&http, bytes, true).expect("nothing more will come");
    if let Outcome::Failed(reason) = &at_the_end {
        assert!(!reason.is_empty() && reason.len() < 64, "{reason}");
    }
    if told.is_some() && bytes.len() <= 2 * MAX_STATUS_LINE_BYTES {
        assert_eq!(told, Some(at_the_end), "its end makes a difference");
    }
}

/// The kernel's list of sockets, as netlink sends it to the closer: what is said of each socket is within the packet,
/// and so is the end of the list.
pub fn sockets(packet: &[u8]) {
    /// `struct nlmsghdr`: no message is shorter.
    const HEADER_BYTES: usize = 16;
    // What is behind the packet in a buffer makes no difference.
    let other = [packet, &[0xa5; 256]].concat();
    let found: Vec<_> = answers(packet).collect();
    assert!(found.iter().eq(&answers(&other[..packet.len()]).collect::<Vec<_>>()));
    assert!(found.len() <= packet.len().div_ceil(HEADER_BYTES), "{} messages", found.len());
    for (answer, other) in found.into_iter().zip(answers(&other[..packet.len()])) {
        if let (Ok(Answer::Row(row)), Ok(Answer::Row(other))) = (answer, other) {
            assert_eq!(row.listed(), other.listed());
            assert_eq!((row.stored(), row.cgroup()), (other.stored(), other.cgroup()));
        }
    }
}
