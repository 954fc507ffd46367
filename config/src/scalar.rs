//! Scalars to values: pure functions that give the value or say what to write instead.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::limit::{MAX_PORT_NAME_BYTES, MAX_SERVICE_NAME_BYTES};
use crate::report::{Excerpt, Suggestion};
use crate::tree::Scalar;

/// A whole number within `range`; `what` names it in errors.
pub(crate) fn whole_number<N: Copy + Display + FromStr + PartialOrd>(
    scalar: &Scalar,
    what: &str,
    range: RangeInclusive<N>,
) -> Result<N, String> {
    let text = scalar.text.as_str();
    let excerpt = Excerpt(text);
    let wanted = format!("write a {what} between {} and {}", range.start(), range.end());
    if scalar.is_null() {
        return Err(format!("the {what} is empty: {wanted}"));
    }
    if !scalar.plain {
        return Err(format!("the {what} {excerpt} is in quotes: {wanted}, without them"));
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(match text.parse::<f64>() {
            Ok(_) => format!("the {what} {excerpt} is not in whole decimal digits: {wanted}"),
            Err(_) => format!("the {what} {excerpt} is not a number: {wanted}"),
        });
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!("the {what} {excerpt} has leading zeros: {wanted}, without them"));
    }
    // Digits that do not fit the type are out of its range.
    match text.parse::<N>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{what} {number} is out of range: {wanted}", number = shortened(text))),
    }
}

/// A whole number and a unit, `500ms`, `30s`, `5m` or `2h`, within `range`; `what` names it in errors.
pub(crate) fn duration(
    scalar: &Scalar,
    what: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let text = scalar.text.as_str();
    let excerpt = Excerpt(text);
    let (least, most) = (written(*range.start()), written(*range.end()));
    let wanted = format!("write one between {least} and {most}, such as 500ms, 30s, 5m or 2h");
    if scalar.is_null() {
        return Err(format!("the {what} is empty: {wanted}"));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return Err(format!("the {what} {excerpt} is not a number and a unit: {wanted}")),
    };
    if number.is_empty() || (number.len() > 1 && number.starts_with('0')) {
        return Err(format!("the {what} {excerpt} is not a number and a unit: {wanted}"));
    }
    // Digits that do not fit the type are out of every range.
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    match number.map(Duration::from_millis) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => Err(format!("the {what} {excerpt} is out of range: {wanted}")),
    }
}

/// `duration` as the configuration writes it.
fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s"), (1, "ms")];
    let fits = |(unit, _): &(u128, &str)| millis >= *unit && millis.is_multiple_of(*unit);
    let (unit, name) = units.into_iter().find(fits).unwrap_or((1, "ms"));
    format!("{}{name}", millis / unit)
}

/// Digits in a length that can be read.
fn shortened(digits: &str) -> String {
    const MAX_DIGITS: usize = 20;
    match digits.get(..MAX_DIGITS) {
        Some(first) if digits.len() > MAX_DIGITS => format!("{first}…"),
        _ => digits.to_owned(),
    }
}

/// One of `known`; `what` names it in errors.
pub(crate) fn one_of<'a>(
    scalar: &Scalar,
    what: &str,
    known: &'a [&'a str],
) -> Result<&'a str, String> {
    let word = scalar.text.as_str();
    known
        .iter()
        .copied()
        .find(|known| *known == word)
        .ok_or_else(|| format!("unknown {what} {}; {}", Excerpt(word), Suggestion { word, known }))
}

/// A service's name: a DNS label.
pub(crate) fn service_name(scalar: &Scalar) -> Result<&str, String> {
    let name = scalar.text.as_str();
    let wanted = format!(
        "write 1 to {MAX_SERVICE_NAME_BYTES} lower-case letters, digits and hyphens, a letter or \
         digit first and last"
    );
    if scalar.is_null() {
        return Err(format!("the service name is empty: {wanted}"));
    }
    if name.len() > MAX_SERVICE_NAME_BYTES {
        return Err(format!("a service name of {} bytes: {wanted}", name.len()));
    }
    if !is_label(name) {
        return Err(format!("the service name {} is not a DNS label: {wanted}", Excerpt(name)));
    }
    Ok(name)
}

/// A port's name: an IANA service name, in lower case.
pub(crate) fn port_name(scalar: &Scalar) -> Result<&str, String> {
    let name = scalar.text.as_str();
    let wanted = format!(
        "write 1 to {MAX_PORT_NAME_BYTES} lower-case letters, digits and single hyphens, a letter \
         or digit first and last, at least one letter"
    );
    if scalar.is_null() {
        return Err(format!("the port name is empty: {wanted}"));
    }
    if name.len() > MAX_PORT_NAME_BYTES {
        return Err(format!("a port name of {} bytes: {wanted}", name.len()));
    }
    let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    if !is_label(name) || !has_letter || name.contains("--") {
        return Err(format!("the port name {} is not a service name: {wanted}", Excerpt(name)));
    }
    Ok(name)
}

pub(crate) fn is_label(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

/// A unicast address that a client can connect to.
pub(crate) fn address(scalar: &Scalar) -> Result<IpAddr, String> {
    let text = scalar.text.as_str();
    let excerpt = Excerpt(text);
    if scalar.is_null() {
        return Err("the address is empty: write an IPv4 or IPv6 address".to_owned());
    }
    let address: IpAddr = text.parse().map_err(|_| why_no_address(text))?;
    let refused = match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            "is the unspecified address"
        }
        IpAddr::V4(Ipv4Addr::BROADCAST) => "is the broadcast address",
        address if address.is_multicast() => "is a multicast address",
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            "is a link-local address, which means something else on each interface"
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => {
                return Err(format!("{excerpt} is an IPv4 address in IPv6 form: write {inner}"));
            }
            None => return Ok(IpAddr::V6(address)),
        },
        IpAddr::V4(address) => return Ok(IpAddr::V4(address)),
    };
    Err(format!("{excerpt} {refused}: write the unicast address of one host"))
}

fn why_no_address(text: &str) -> String {
    let excerpt = Excerpt(text);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    if text.parse::<SocketAddr>().is_ok() {
        format!("{excerpt} is an address and a port: write the port under a key of its own")
    } else if bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
        format!("the address {excerpt} is in brackets: write it without them")
    } else if text.contains('%') {
        format!("the address {excerpt} names an interface: write it without one")
    } else if text.split_once('/').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
        format!("{excerpt} is a range of addresses: write each address")
    } else if is_dotted_with_leading_zeros(text) {
        format!("the address {excerpt} has leading zeros: write it without them")
    } else {
        format!(
            "{excerpt} is not an IP address; names are not resolved: write an IPv4 or IPv6 address"
        )
    }
}

fn is_dotted_with_leading_zeros(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(5, '.').map(str::parse::<u8>).collect();
    parts.len() == 4 && parts.iter().all(Result::is_ok)
}
