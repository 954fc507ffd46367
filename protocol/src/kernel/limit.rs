//! Bounds and defaults of the maps' sizes.

/// Services: one per service, port and address family.
pub const DEFAULT_SERVICES: u32 = 65_536;
/// Slots of `TABLES`: one per endpoint and one per table.
pub const DEFAULT_SLOTS: u32 = 1_048_576;
/// Frontends for each service number: room for several addresses each.
pub const FRONTENDS_PER_SERVICE: u32 = 2;
/// Flows of unconnected datagram sockets that are remembered: room for the busiest resolvers and
/// games of a node, at 216 bytes a flow in the two maps together (16 MiB with their buckets).
pub const DEFAULT_FLOWS: u32 = 65_536;
/// Rows of a table that are searched for the endpoint of a flow or of a client that stays: the most
/// endpoints a service has.
pub const SEARCHED_ROWS: u32 = 65_536;
/// Elements of `SOCKETS`, a power of two: 8 MiB. A socket has the one that its cookie says or, of TCP, where it lies in
/// memory; when another socket has that one, the kernel makes storage for it, which takes several times as long.
pub const SOCKETS: u32 = 65_536;
/// Lines of `ADDRESS_CACHE`, a power of two: 64 KiB, for more addresses than a node is busy with at once. Each address
/// has one line, and has it for itself only as long as no other address with that line is asked for.
pub const CACHE_LINES: u32 = 1024;
/// Elements of `ADDRESS_CACHE`: the lines, and one that says which era it is.
pub const CACHE_ELEMENTS: u32 = CACHE_LINES + 1;
/// Elements of `ENROLLED`: the longest list twice, because the next one is written beside it.
pub const ENROLLED: u32 = 4096;
/// How deep below the root a cgroup is that can be enrolled, in levels. Container engines nest
/// about six deep.
pub const CGROUP_LEVELS: u32 = 16;
/// How often a program looks at a list of the enrolled that is replaced meanwhile: a list changes at
/// most once in seconds, so the second look settles it.
pub const ENROLMENT_LOOKS: u32 = 2;
/// Clients that stay with an endpoint, of all services. The kernel has memory for all of them at
/// once, 8 MiB; with more clients those not seen for longest are forgotten.
pub const AFFINITIES: u32 = 65_536;
/// Clients whose connections a second are counted, of all services: 8 MiB. With more clients those not
/// seen for longest begin anew.
pub const CLIENT_RATES: u32 = 65_536;
/// Bytes of `EVENTS`, a power of two and a multiple of the page size: 29,000 events, so that those of
/// a busy node wait for seconds.
pub const DEFAULT_EVENT_BYTES: u32 = 4 << 20;
/// Endpoint numbers of an estate with fewer slots than that are as many as its slots.
pub const MIN_ENDPOINTS: u32 = 65_536;
/// Slots for each endpoint number, in an estate with more: an endpoint is in one table of its
/// service most of the time, and each number takes more memory than a slot.
pub const SLOTS_PER_ENDPOINT: u32 = 4;

/// How many endpoint numbers an estate with `slots` slots has.
#[must_use]
pub const fn endpoints(slots: u32) -> u32 {
    let share = slots / SLOTS_PER_ENDPOINT;
    if slots < MIN_ENDPOINTS {
        slots
    } else if share < MIN_ENDPOINTS {
        MIN_ENDPOINTS
    } else {
        share
    }
}

/// How often a program looks again before it refuses. A writer publishes a service far less
/// often than a program can look, so the second look practically always settles it.
pub const LOOKS: u32 = 4;
