//! What a fault makes impossible by nature, as data.
//!
//! A promise that nobody could keep is not held against anybody, but only where that is declared:
//! for one kind of trouble, one address family, and a time that begins with the fault and ends when
//! the state has been seen to be as before. Everything else counts.

use serde::{Deserialize, Serialize};

use super::Fault;

/// Address family of a client's socket: each has a hook of its own. An IPv6 socket that connects to
/// an IPv4 address uses the one of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

/// What may happen while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "may", content = "of", rename_all = "kebab-case")]
pub enum Effect {
    /// New connections of this family are not governed: no program is attached.
    Ungoverned(Family),
    /// Nobody can write the maps, so a save comes into force later: new connections may still reach
    /// an endpoint that it has removed.
    LateRemoval,
    /// Links are made anew, with other ids, and a hook may be empty until they are.
    OtherLinks,
}

impl Effect {
    /// Why, for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Ungoverned(Family::Ipv4) => "no program is attached to connect(2) of IPv4",
            Self::Ungoverned(Family::Ipv6) => "no program is attached to connect(2) of IPv6",
            Self::LateRemoval => "no worker can write",
            Self::OtherLinks => "a link is gone and has to be made anew",
        }
    }
}

impl Fault {
    /// What may happen from the fault until its end has been made good.
    ///
    /// A killed worker is no excuse for anything: the next one is there in milliseconds.
    pub fn effects(&self) -> Vec<Effect> {
        let all_families = [Effect::Ungoverned(Family::Ipv4), Effect::Ungoverned(Family::Ipv6)];
        match self {
            Self::Stop
            | Self::Hang
            | Self::SupervisorKill
            | Self::BothKill
            | Self::SupervisorPause
            | Self::NoDescriptors
            | Self::NoMemory
            | Self::OutOfMemory => vec![Effect::LateRemoval],
            Self::DetachLink { draw } => {
                let governed = match super::estate::link(*draw) {
                    "hf_connect4" => Some(Effect::Ungoverned(Family::Ipv4)),
                    "hf_connect6" => Some(Effect::Ungoverned(Family::Ipv6)),
                    _ => None,
                };
                governed.into_iter().chain([Effect::OtherLinks]).collect()
            }
            Self::RemoveCgroup => all_families.into_iter().chain([Effect::OtherLinks]).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_protocol::kernel::program;

    use super::*;

    #[test]
    fn only_a_detached_connect_hook_excuses_its_own_family() {
        // Draws are spread evenly over the links: these are in the middle of each one's share.
        let links = super::super::estate::LINKS;
        assert!(!links.contains(&program::INGRESS), "it is not attached");
        let shares = 2 * u64::try_from(links.len()).expect("few");
        for (link, share) in links.iter().zip((1..shares).step_by(2)) {
            let draw = u32::try_from((share << 32) / shares).expect("below 2^32");
            let excused = match *link {
                program::CONNECT4 => vec![Effect::Ungoverned(Family::Ipv4), Effect::OtherLinks],
                program::CONNECT6 => vec![Effect::Ungoverned(Family::Ipv6), Effect::OtherLinks],
                _ => vec![Effect::OtherLinks],
            };
            assert_eq!(Fault::DetachLink { draw }.effects(), excused, "{link}");
        }
    }

    #[test]
    fn a_kill_and_a_storm_excuse_nothing() {
        for fault in [Fault::Kill { draw: 0 }, Fault::SighupStorm { count: 50 }] {
            assert_eq!(fault.effects(), []);
        }
    }
}
