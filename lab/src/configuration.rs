//! Services as values, and the YAML a user would write for them.

use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

/// A service of the configuration, with one port.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    addresses: Vec<IpAddr>,
    port: u16,
    protocol: &'static str,
    balancing: String,
    no_endpoint: &'static str,
    endpoints: Vec<(SocketAddr, String)>,
    /// Further keys, a line each.
    more: Vec<String>,
}

impl Service {
    /// A TCP service at one virtual address, without an endpoint: random, and refusing until it
    /// has one.
    #[must_use]
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self {
            name: name.to_owned(),
            addresses: vec![address.ip()],
            port: address.port(),
            protocol: "tcp",
            balancing: "policy: random".to_owned(),
            no_endpoint: "refuse",
            endpoints: Vec::new(),
            more: Vec::new(),
        }
    }

    /// The same for UDP.
    #[must_use]
    pub fn udp(name: &str, address: SocketAddr) -> Self {
        Self { protocol: "udp", ..Self::tcp(name, address) }
    }

    /// With another virtual address, at the same port.
    #[must_use]
    pub fn at(mut self, address: IpAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// With another endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: SocketAddr) -> Self {
        self.endpoints.push((endpoint, "weight: 1".to_owned()));
        self
    }

    /// With another endpoint, and what else its mapping says: `weight: 3, draining: true`.
    #[must_use]
    pub fn endpoint_with(mut self, endpoint: SocketAddr, keys: &str) -> Self {
        self.endpoints.push((endpoint, keys.to_owned()));
        self
    }

    /// With other keys of `load_balancing`: `policy: round_robin`.
    #[must_use]
    pub fn balanced(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.balancing);
        self
    }

    /// With another endpoint that has a weight, and connections spread by weight.
    #[must_use]
    pub fn weighted(self, endpoint: SocketAddr, weight: u16) -> Self {
        self.balanced("policy: weighted").endpoint_with(endpoint, &format!("weight: {weight}"))
    }

    /// With a further key, as it is written: `limits: { connections: 1 }`.
    #[must_use]
    pub fn key(mut self, line: &str) -> Self {
        self.more.push(line.to_owned());
        self
    }

    /// With another answer to a connection for which there is no endpoint.
    #[must_use]
    pub const fn no_endpoint(mut self, answer: &'static str) -> Self {
        self.no_endpoint = answer;
        self
    }
}

impl Display for Service {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> =
            self.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        writeln!(f, "  - name: {}", self.name)?;
        writeln!(f, "    addresses: [{}]", addresses.join(", "))?;
        writeln!(
            f,
            "    ports: [{{ name: main, port: {0}, protocol: {1}, target_port: {0} }}]",
            self.port, self.protocol
        )?;
        writeln!(f, "    load_balancing: {{ {} }}", self.balancing)?;
        writeln!(f, "    no_endpoint: {}", self.no_endpoint)?;
        for line in &self.more {
            writeln!(f, "    {line}")?;
        }
        if self.endpoints.is_empty() {
            return writeln!(f, "    endpoints: []");
        }
        writeln!(f, "    endpoints:")?;
        for (endpoint, keys) in &self.endpoints {
            let (address, port) = (endpoint.ip(), endpoint.port());
            writeln!(f, "      - {{ address: \"{address}\", port: {port}, {keys} }}")?;
        }
        Ok(())
    }
}

/// The text of a configuration file with these services.
#[must_use]
pub fn render(services: &[Service]) -> String {
    if services.is_empty() {
        return String::from("services: []\n");
    }
    services.iter().fold(String::from("services:\n"), |text, service| text + &service.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_as_documented() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal address");
        let service = Service::tcp("web", address("127.96.0.10:80"))
            .at("fd96::10".parse().expect("a literal address"))
            .weighted(address("127.0.0.1:18080"), 3);
        let expected = "\
services:
  - name: web
    addresses: [\"127.96.0.10\", \"fd96::10\"]
    ports: [{ name: main, port: 80, protocol: tcp, target_port: 80 }]
    load_balancing: { policy: weighted }
    no_endpoint: refuse
    endpoints:
      - { address: \"127.0.0.1\", port: 18080, weight: 3 }
";
        assert_eq!(render(&[service]), expected);
    }
}
