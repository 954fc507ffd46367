//! Which endpoint was in the configuration when. Pure.

/// When each endpoint was in the configuration; times in microseconds.
#[derive(Clone, Debug)]
pub struct Ledger {
    endpoints: Vec<Vec<Presence>>,
    /// A connection that begins more than this after an endpoint's removal must not reach it.
    grace_us: u64,
}

/// A time in which an endpoint was in the configuration.
#[derive(Clone, Copy, Debug)]
struct Presence {
    from_us: u64,
    to_us: Option<u64>,
}

impl Ledger {
    /// `count` endpoints that are all there from the begin.
    pub fn new(count: usize, grace_us: u64) -> Self {
        let always = vec![Presence { from_us: 0, to_us: None }];
        Self { endpoints: vec![always; count], grace_us }
    }

    /// The save that brings the endpoint is about to be renamed into its place.
    pub fn add(&mut self, endpoint: usize, now_us: u64) {
        if !self.is_there(endpoint) {
            self.endpoints[endpoint].push(Presence { from_us: now_us, to_us: None });
        }
    }

    /// The save without the endpoint has just been renamed into its place.
    pub fn remove(&mut self, endpoint: usize, now_us: u64) {
        if let Some(last) = self.endpoints[endpoint].last_mut()
            && last.to_us.is_none()
        {
            last.to_us = Some(now_us);
        }
    }

    /// Whether it is in the configuration now.
    pub fn is_there(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].last().is_some_and(|last| last.to_us.is_none())
    }

    /// When it was removed; `None` while it is there.
    pub fn removed_us(&self, endpoint: usize) -> Option<u64> {
        self.endpoints[endpoint].last().and_then(|last| last.to_us)
    }

    /// Whether a connection that went on from `begin_us` to `end_us` may have reached the endpoint.
    pub fn allows(&self, endpoint: usize, begin_us: u64, end_us: u64) -> bool {
        self.endpoints[endpoint].iter().rev().any(|presence| {
            let left = presence.to_us.is_none_or(|to| begin_us <= to + self.grace_us);
            left && presence.from_us <= end_us
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE_US: u64 = 100_000;

    #[test]
    fn an_endpoint_may_be_reached_until_the_grace_after_its_removal_is_over() {
        let mut ledger = Ledger::new(2, GRACE_US);
        assert!(ledger.allows(0, 5, 6));
        ledger.remove(0, 1_000);
        assert!(ledger.allows(0, 1_000 + GRACE_US, 2_000 + GRACE_US));
        assert!(!ledger.allows(0, 1_001 + GRACE_US, 2_000 + GRACE_US));
        assert!(ledger.allows(1, 1_001 + GRACE_US, 2_000 + GRACE_US), "the other one stays");
        assert_eq!(ledger.removed_us(0), Some(1_000));
        ledger.add(0, 500_000);
        assert!(!ledger.allows(0, 300_000, 499_999));
        assert!(ledger.allows(0, 300_000, 500_000), "it came back while the connection was opened");
        assert!(ledger.allows(0, 600_000, 600_001));
        assert!(ledger.is_there(0));
    }

    #[test]
    fn a_second_removal_or_addition_changes_nothing() {
        let mut ledger = Ledger::new(1, GRACE_US);
        ledger.add(0, 50);
        ledger.remove(0, 100);
        ledger.remove(0, 900_000);
        assert_eq!(ledger.removed_us(0), Some(100));
    }
}
