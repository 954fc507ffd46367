//! Rules of the kernel that translate an address, as kube-proxy makes them.
//!
//! While any rule of nftables is there, every connection of the network namespace is tracked: it is
//! made for its turn and removed after. The same with IPVS.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::{Missing, installed};

const NFT: &str = "/usr/sbin/nft";
const IPVSADM: &str = "/usr/sbin/ipvsadm";

/// The kernel's account of IPVS, where it has it.
const IPVS: &str = "/proc/net/ip_vs";

/// Who translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translator {
    /// A rule of nftables.
    Nftables,
    /// A virtual service of IPVS, with masquerading.
    Ipvs,
}

/// A rule that is there. [`Translation::remove`] removes it; what a failure leaves goes with the
/// network namespace.
#[derive(Debug)]
pub struct Translation(Translator);

impl Translator {
    /// Whether it is here.
    pub fn find(self) -> Result<(), Missing> {
        match self {
            Self::Nftables => installed(NFT, "nftables").map(drop),
            Self::Ipvs if !Path::new(IPVS).exists() => {
                Err(Missing(format!("this kernel has no IPVS ({IPVS} does not exist)")))
            }
            Self::Ipvs => installed(IPVSADM, "ipvsadm").map(drop),
        }
    }

    /// From `listen` to `backend`.
    pub fn insert(
        self,
        udp: bool,
        listen: SocketAddr,
        backend: SocketAddr,
    ) -> anyhow::Result<Translation> {
        let (address, port) = (listen.ip(), listen.port());
        match self {
            Self::Nftables => {
                let protocol = if udp { "udp" } else { "tcp" };
                run(
                    NFT,
                    &[&format!(
                        "table ip bench {{ chain output {{ type nat hook output priority -100\n \
                     ip daddr {address} {protocol} dport {port} dnat to {backend}\n }}\n }}"
                    )],
                )?;
            }
            Self::Ipvs => {
                let (protocol, listen) = (if udp { "-u" } else { "-t" }, listen.to_string());
                run(IPVSADM, &["-A", protocol, &listen, "-s", "rr"])?;
                run(IPVSADM, &["-a", protocol, &listen, "-r", &backend.to_string(), "-m"])?;
            }
        }
        Ok(Translation(self))
    }
}

impl Translation {
    /// Removes it.
    pub fn remove(self) -> anyhow::Result<()> {
        match self.0 {
            Translator::Nftables => run(NFT, &["delete table ip bench"]),
            Translator::Ipvs => run(IPVSADM, &["-C"]),
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(arguments).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} refuses: {arguments:?}");
    Ok(())
}
