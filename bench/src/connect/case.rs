//! What is connected to what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The port of every service, and the one of the backend.
const FRONTEND_PORT: u16 = 80;
const BACKEND_PORT: u16 = 18080;

/// Services go by turns, in steps of this prime: the next one is never in a cache line with the last.
const STRIDE: u32 = 7919;

/// Most services that have an address of each family.
const MOST_OF_BOTH_FAMILIES: u32 = 16_384;

/// TCP, or UDP with connected sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How.
    pub transport: Transport,
    /// From what kind of socket.
    pub family: Family,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { transport: Transport::Tcp, family: Family::V4 },
        Self { transport: Transport::Udp, family: Family::V4 },
        Self { transport: Transport::Tcp, family: Family::V6 },
        Self { transport: Transport::Udp, family: Family::V6 },
    ];

    /// How it is called in a table.
    pub const fn name(self) -> &'static str {
        match (self.transport, self.family) {
            (Transport::Tcp, Family::V4) => "TCP, IPv4",
            (Transport::Udp, Family::V4) => "UDP, IPv4",
            (Transport::Tcp, Family::V6) => "TCP, IPv6",
            (Transport::Udp, Family::V6) => "UDP, IPv6",
        }
    }
}

/// Where the backend listens.
pub const fn backend(family: Family) -> SocketAddr {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(address, BACKEND_PORT)
}

/// The address of the `turn`th connection's service, of `services` that there are.
pub fn frontend(family: Family, services: u32, turn: u32) -> SocketAddr {
    let number = turn.wrapping_mul(STRIDE) % services;
    SocketAddr::new(address(family, number), FRONTEND_PORT)
}

fn address(family: Family, number: u32) -> IpAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    let (upper, lower) = (u16::from(high), u16::from_be_bytes([middle, low]));
    match family {
        Family::V4 => Ipv4Addr::new(127, 97 + high, middle, low).into(),
        Family::V6 => Ipv6Addr::new(0xfd97, 0, 0, 0, 0, 0, upper, lower).into(),
    }
}

/// Whether a configuration with this many services has IPv6 addresses too: the largest file that is
/// read has no room for them in the largest number of services.
const fn has_v6(services: u32) -> bool {
    services <= MOST_OF_BOTH_FAMILIES
}

/// The kinds of connection that there are with this many services.
pub fn cases(services: u32) -> impl Iterator<Item = Case> {
    let both = has_v6(services);
    Case::ALL.into_iter().filter(move |case| both || case.family == Family::V4)
}

/// A configuration with this many services, each of TCP and UDP.
pub fn configuration(services: u32) -> String {
    let service = |number: u32| {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| address(family, number));
        let [to4, to6] = [Family::V4, Family::V6].map(|family| backend(family).ip());
        let (addresses, endpoints) = match has_v6(services) {
            true => (
                format!("{v4}, \"{v6}\""),
                format!("{{ address: {to4} }}, {{ address: \"{to6}\" }}"),
            ),
            false => (v4.to_string(), format!("{{ address: {to4} }}")),
        };
        format!(
            "  - name: s{number}\n    addresses: [{addresses}]\n    ports:\n      \
             - {{ name: tcp, port: {FRONTEND_PORT}, target_port: {BACKEND_PORT} }}\n      \
             - {{ name: udp, port: {FRONTEND_PORT}, target_port: {BACKEND_PORT}, protocol: udp }}\n    \
             endpoints: [{endpoints}]\n"
        )
    };
    (0..services).map(service).fold(String::from("services:\n"), |text, service| text + &service)
}

/// A configuration with one service, whose connections are asked about everything that is common: limits, affinity, and
/// policies, one of which is about the workloads in the cgroup `other`.
pub fn asked(other: &Path) -> String {
    let other = other.display();
    configuration(1)
        + &format!(
            "    load_balancing: {{ policy: random, affinity: {{ for: 1h }} }}\n    \
             limits: {{ connections: 1000000, endpoint_connections: 1000000 }}\n\
             identities:\n  - {{ name: other, cgroups: [\"{other}\"] }}\n\
             policies:\n  - {{ name: far, action: deny, rules: [{{ from: {{ identities: [other] }}, to: {{ ports: \
             [{FRONTEND_PORT}] }} }}] }}\n  - {{ name: near, action: allow, rules: [{{ to: {{ ports: \
             [{FRONTEND_PORT}] }} }}] }}\n"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_its_turn() {
        let services = 1000;
        let seen: std::collections::HashSet<_> =
            (0..services).map(|turn| frontend(Family::V4, services, turn)).collect();
        assert_eq!(seen.len(), 1000);
        assert_eq!(frontend(Family::V4, 1, 5).to_string(), "127.97.0.0:80");
        assert_eq!(frontend(Family::V6, 70_000, 1).to_string(), "[fd97::1eef]:80");
    }

    #[test]
    fn a_configuration_names_both_families() {
        let text = configuration(2);
        assert!(text.contains("addresses: [127.97.0.1, \"fd97::1\"]"), "{text}");
        assert!(
            text.contains("endpoints: [{ address: 127.0.0.1 }, { address: \"::1\" }]"),
            "{text}"
        );
    }

    #[test]
    fn the_largest_configuration_fits_the_largest_file() {
        let (least, most) = (configuration(1_000), configuration(65_536));
        assert!(most.len() <= 16 * 1024 * 1024, "{}", most.len());
        assert!(most.len() / 65_536 < least.len() / 1_000, "it has one family only");
        assert_eq!((cases(1_000).count(), cases(65_536).count()), (4, 2));
    }
}
