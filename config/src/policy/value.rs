//! Scalars to the values of policies: pure functions that give the value or say what to write instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use super::{Cidr, PortRange};
use crate::limit::{MAX_CGROUP_LEVELS, MAX_SERVICE_NAME_BYTES};
use crate::report::Excerpt;
use crate::scalar::{is_label, whole_number};
use crate::tree::Scalar;

/// A DNS label; `what` names it in errors.
pub(super) fn label<'s>(scalar: &'s Scalar, what: &str) -> Result<&'s str, String> {
    let name = scalar.text.as_str();
    if name.len() <= MAX_SERVICE_NAME_BYTES && is_label(name) {
        return Ok(name);
    }
    Err(format!(
        "the {what} {} is not a DNS label: write 1 to {MAX_SERVICE_NAME_BYTES} lower-case letters, \
         digits and hyphens, a letter or digit first and last",
        Excerpt(name)
    ))
}

/// An address, or a range of them without bits beyond its length.
pub(super) fn cidr(scalar: &Scalar) -> Result<Cidr, String> {
    let text = scalar.text.as_str();
    let excerpt = Excerpt(text);
    let wanted = "write an address, or a range such as 10.0.0.0/8 or \"fd00::/8\"";
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr =
        address.parse().map_err(|_| format!("{excerpt} is not a range of addresses: {wanted}"))?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let is_decimal = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let length = match length {
        None => widest,
        Some(length) => Some(length)
            .filter(is_decimal)
            .and_then(|length| length.parse::<u8>().ok())
            .filter(|length| *length <= widest)
            .ok_or_else(|| {
                format!("the length in {excerpt} is out of range: write one between 0 and {widest}")
            })?,
    };
    if let IpAddr::V6(address) = address
        && let Some(inner) = address.to_ipv4_mapped()
        && length >= MAPPED_BITS
    {
        let length = length - MAPPED_BITS;
        return Err(format!("{excerpt} is IPv4 in IPv6 form: write {inner}/{length}"));
    }
    let first = Cidr { address: first_of(address, length), length };
    if first.address != address {
        return Err(format!("{excerpt} has bits beyond its length: write {first}"));
    }
    Ok(first)
}

/// Bits that the IPv4-mapped addresses have in common.
const MAPPED_BITS: u8 = 96;

/// The first address of the range of this length that `address` is in.
fn first_of(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// A port, or a range of them: `8000-8080`.
pub(super) fn ports(scalar: &Scalar) -> Result<PortRange, String> {
    let Some((first, last)) = scalar.text.split_once('-').filter(|(first, _)| !first.is_empty())
    else {
        let port = whole_number(scalar, "port", 1..=u16::MAX)?;
        return Ok(PortRange { first: port, last: port });
    };
    let part = |text: &str| {
        let scalar = Scalar { text: text.to_owned(), plain: scalar.plain };
        whole_number(&scalar, "port", 1..=u16::MAX)
    };
    let range = PortRange { first: part(first)?, last: part(last)? };
    if range.first > range.last {
        let text = Excerpt(&scalar.text);
        return Err(format!("the ports {text} are in the wrong order: write the lower one first"));
    }
    Ok(range)
}

/// The directory of a cgroup.
pub(super) fn cgroup(scalar: &Scalar) -> Result<PathBuf, String> {
    let path = Path::new(&scalar.text);
    let excerpt = Excerpt(&scalar.text);
    let mut parts = path.components();
    let is_plain = parts.next() == Some(Component::RootDir)
        && parts.clone().all(|part| matches!(part, Component::Normal(_)));
    // What `components` leaves out is left out of no other cgroup's path either.
    let normal: PathBuf = path.components().collect();
    if !is_plain || normal.as_os_str() != path.as_os_str() || scalar.text.contains('\0') {
        return Err(format!(
            "the cgroup {excerpt} is not a plain path: write it from the root, such as \
             /sys/fs/cgroup/web.slice, without `.`, `..` and doubled or trailing slashes"
        ));
    }
    match parts.count() {
        0 => {
            Err("the cgroup `/` is no cgroup: write a directory of the cgroup2 file system".into())
        }
        1..=MAX_CGROUP_LEVELS => Ok(normal),
        levels => Err(format!(
            "the cgroup {excerpt} lies {levels} directories deep: the limit is {MAX_CGROUP_LEVELS}"
        )),
    }
}
