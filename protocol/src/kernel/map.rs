//! Names of the maps, as they stand in the object file, in the manifest and in the pins.

/// Hash: [`FrontendKey`](super::FrontendKey) to [`Frontend`](super::Frontend).
pub const FRONTENDS: &str = "FRONTENDS";
/// Memory-mapped array of [`CacheLine`](super::cache::CacheLine)s: what lookups in `FRONTENDS` found.
pub const ADDRESS_CACHE: &str = "ADDRESS_CACHE";
/// Memory-mapped array: service number to [`HeadWord`](super::HeadWord).
pub const HEADS: &str = "HEADS";
/// Memory-mapped array of 32-byte slots: [`TableHeader`](super::TableHeader) or
/// [`EndpointSlot`](super::EndpointSlot).
pub const TABLES: &str = "TABLES";
/// Memory-mapped array: service number to [`ServiceRecord`](super::ServiceRecord).
pub const SERVICES: &str = "SERVICES";
/// Per-CPU array: service number to [`ServiceCounters`](super::ServiceCounters).
pub const COUNTERS: &str = "COUNTERS";
/// Array: socket to [`SocketState`](super::SocketState), at the element that its cookie says or, of TCP, where it lies.
pub const SOCKETS: &str = "SOCKETS";
/// Socket storage: the same, of a socket whose element another one has.
pub const OVERFLOW: &str = "OVERFLOW";
/// Array: service number to a 64-bit count of the endpoints it took in turn.
pub const CURSORS: &str = "CURSORS";
/// Least-recently-used hash: [`FlowKey`](super::FlowKey) to [`Flow`](super::Flow).
pub const FLOWS: &str = "FLOWS";
/// Least-recently-used hash: [`FlowKey`](super::FlowKey) to [`Reply`](super::Reply).
pub const REPLIES: &str = "REPLIES";
/// Memory-mapped array of one element: [`EnrolmentWord`](super::EnrolmentWord).
pub const ENROLMENT: &str = "ENROLMENT";
/// Hash: [`EnrolledKey`](super::EnrolledKey) to a number that says nothing.
pub const ENROLLED: &str = "ENROLLED";
/// Least-recently-used hash: [`AffinityKey`](super::AffinityKey) to [`Affinity`](super::Affinity).
pub const AFFINITIES: &str = "AFFINITIES";
/// Array of [`Recent`](super::Recent)s: where clients were last found to stay, at the element that their key says.
pub const RECENTS: &str = "RECENTS";
/// Memory-mapped array: endpoint number to [`EndpointState`](super::endpoint::EndpointState).
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Memory-mapped array: service number to [`Traffic`](super::traffic::Traffic).
pub const TRAFFIC: &str = "TRAFFIC";
/// Array: service number to when its next connection would be on time at its rate, in nanoseconds
/// since boot.
pub const RATES: &str = "RATES";
/// Least-recently-used hash: [`AffinityKey`](super::AffinityKey) to the same for one client.
pub const CLIENT_RATES: &str = "CLIENT_RATES";

/// Memory-mapped array of one element: the [`HeadWord`](super::HeadWord) of the policies in force.
pub const POLICY_HEAD: &str = "POLICY_HEAD";
/// Memory-mapped array of [`Cell`](super::rules::Cell)s: the policies, compiled.
pub const POLICIES: &str = "POLICIES";
/// Per-CPU array: policy number to [`PolicyCounters`](super::rules::PolicyCounters).
pub const POLICY_COUNTERS: &str = "POLICY_COUNTERS";
/// Array of [`Precedent`](super::rules::Precedent)s: what the policies have said before, at the element that what was
/// judged says.
pub const PRECEDENTS: &str = "PRECEDENTS";

/// Ring buffer: what is told of connections, an [`Event`](super::event::Event) each.
pub const EVENTS: &str = "EVENTS";
/// Memory-mapped array of one element: [`EventControl`](super::event::EventControl).
pub const EVENT_CONTROL: &str = "EVENT_CONTROL";

/// Socket storage: [`Judged`](super::rules::Judged), of a connection that has arrived.
pub const ARRIVALS: &str = "ARRIVALS";

/// What whoever closes connections is handed, in this order.
pub const CLOSING: [&str; 4] = [ENDPOINTS, SOCKETS, OVERFLOW, TRAFFIC];

/// Every map of the estate, in the order they are offered.
pub const ALL: [&str; 26] = [
    FRONTENDS,
    HEADS,
    TABLES,
    SERVICES,
    COUNTERS,
    SOCKETS,
    OVERFLOW,
    CURSORS,
    FLOWS,
    REPLIES,
    ENROLMENT,
    ENROLLED,
    AFFINITIES,
    RECENTS,
    ENDPOINTS,
    TRAFFIC,
    RATES,
    CLIENT_RATES,
    POLICY_HEAD,
    POLICIES,
    POLICY_COUNTERS,
    PRECEDENTS,
    EVENTS,
    EVENT_CONTROL,
    ARRIVALS,
    ADDRESS_CACHE,
];
