//! Every bound of the language. What exceeds one is refused by name; nothing is ever cut off.

use std::time::Duration;

/// Largest configuration file, in bytes. 65,536 services of one endpoint each take some 10 MB.
pub const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// Largest sum of all files of a directory, in bytes: twice the largest file, so that memory stays
/// bounded however many files there are.
pub const MAX_TOTAL_BYTES: usize = 2 * MAX_FILE_BYTES;

/// Most files in a directory. One file per team or per application stays far below it.
pub const MAX_FILES: usize = 1024;

/// Most services in all files together: as many as the kernel tables hold by default.
pub const MAX_SERVICES: usize = 65_536;

/// Most addresses of one service. Each is an entry of the kernel's frontend table per port.
pub const MAX_ADDRESSES_PER_SERVICE: usize = 64;

/// Most ports of one service.
pub const MAX_PORTS_PER_SERVICE: usize = 256;

/// Most frontends (address, port and protocol) in all files together. Addresses and ports multiply,
/// so a short text could otherwise ask for more memory than a node has.
pub const MAX_FRONTENDS: usize = 1_048_576;

/// Most endpoints of one service.
pub const MAX_ENDPOINTS_PER_SERVICE: usize = 65_535;

/// Most further addresses of one endpoint: those of a dual-stack workload on a node with several addresses.
pub const MAX_ALIASES_PER_ENDPOINT: usize = 8;

/// Most endpoints in all files together: as many as the kernel tables have slots by default.
pub const MAX_ENDPOINTS: usize = 1_048_576;

/// Largest weight of an endpoint. Ratios up to 1:10,000 can be said, and the sum of all weights of
/// a service fits 32 bits.
pub const MAX_WEIGHT: u16 = 10_000;

/// Largest bound on connections. More than a node has ports for towards one address, and far below
/// what the kernel's 32-bit counts hold.
pub const MAX_CONNECTIONS: u32 = 1_000_000;

/// Longest service name, in bytes: a DNS label (RFC 1123).
pub const MAX_SERVICE_NAME_BYTES: usize = 63;

/// Longest port name, in bytes: an IANA service name (RFC 6335).
pub const MAX_PORT_NAME_BYTES: usize = 15;

/// Most cgroups, and most network namespaces, that an enrolment lists.
pub const MAX_ENROLLED: usize = 1_024;

/// Longest path in an enrolment, in bytes: the kernel's limit without the final zero (`PATH_MAX`).
pub const MAX_PATH_BYTES: usize = 4_095;

/// Shortest interval of health checks: ten a second of each endpoint are enough to notice at once.
pub const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Longest interval of health checks, and with it the longest timeout.
pub const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Shortest timeout of a health check: a round trip within a site takes less.
pub const MIN_CHECK_TIMEOUT: Duration = Duration::from_millis(10);

/// Most checks in a row that have to agree before an endpoint's health changes.
pub const MAX_CHECK_THRESHOLD: u8 = 100;

/// Longest path that a health check asks for, in bytes.
pub const MAX_CHECK_PATH_BYTES: usize = 1_024;

/// Longest `Host` that a health check names, in bytes: a DNS name (RFC 1035) and a port.
pub const MAX_CHECK_HOST_BYTES: usize = 259;

/// Most statuses and ranges of them that a health check expects.
pub const MAX_EXPECTED_STATUSES: usize = 64;

/// Most failures, and most attempts, that an outlier ejection waits for: with more it comes too late to
/// help anybody.
pub const MAX_FAILURES: u32 = 100_000;

/// Shortest time over which a failure rate is taken: endpoints are looked at several times in it.
pub const MIN_RATE_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time over which a failure rate is taken.
pub const MAX_RATE_INTERVAL: Duration = Duration::from_secs(3600);

/// Shortest ejection: each writes the tables of its service twice.
pub const MIN_EJECTION_TIME: Duration = Duration::from_secs(1);

/// Longest ejection.
pub const MAX_EJECTION_TIME: Duration = Duration::from_secs(24 * 3600);

/// Longest time after which the connections of an endpoint that drains are closed.
pub const MAX_DRAIN_TIME: Duration = Duration::from_secs(24 * 3600);

/// Deepest nesting. The language itself nests six deep.
pub const MAX_DEPTH: usize = 16;

/// Most YAML nodes (keys, scalars, lists, mappings) in a file. The densest useful text needs about
/// seven bytes for each, so this never binds before [`MAX_FILE_BYTES`] does for a real file.
pub const MAX_NODES: usize = 4_194_304;

/// Most errors that are kept. The rest is counted: nobody reads more, and one wrong tool can
/// produce millions.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Most identities in all files together.
pub const MAX_IDENTITIES: usize = 1024;

/// Most access policies in all files together: as many as the kernel programs count for.
pub const MAX_POLICIES: usize = 1024;

/// Most rules of all access policies together. What they come to has a bit each in what the kernel
/// programs look up.
pub const MAX_RULES: usize = 1024;

/// Most ranges of addresses in a list.
pub const MAX_CIDRS_PER_LIST: usize = 4096;

/// Most ports and ranges of ports in a list.
pub const MAX_PORTS_PER_LIST: usize = 1024;

/// Most names, or cgroups, in a list.
pub const MAX_NAMES_PER_LIST: usize = 1024;

/// Deepest cgroup of an identity, in directories from the root. The kernel programs look at 32 levels;
/// in a container there are more than its paths show.
pub const MAX_CGROUP_LEVELS: usize = 24;
