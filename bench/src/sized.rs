//! Configurations of any size, written as a directory of files (pure, but for the writing).

use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use holdfast_config::limit::MAX_ENDPOINTS;
use holdfast_lab::Lab;
use holdfast_lab::page::grouped;

/// Services in one file: those of the largest size stay below the largest file that is read.
const SERVICES_PER_FILE: u32 = 16_384;

/// The port of every service, and where its endpoints listen.
const PORT: u16 = 80;
const TARGET_PORT: u16 = 18_080;

/// Most services, and most endpoints of one, that addresses here are made for.
const MOST_SERVICES: u32 = 65_536;
const MOST_ENDPOINTS: u32 = 65_534;

/// Most endpoints of all services: no configuration has more.
const MOST_ALL_ENDPOINTS: u64 = MAX_ENDPOINTS as u64;

/// How many services, and how many endpoints each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

impl Size {
    /// Endpoints of all services.
    pub const fn all_endpoints(self) -> u32 {
        self.services * self.endpoints
    }

    /// The texts of its files.
    pub fn texts(self) -> Vec<String> {
        let begins = (0..self.services).step_by(SERVICES_PER_FILE as usize);
        let text = |begin: u32| {
            let end = self.services.min(begin + SERVICES_PER_FILE);
            (begin..end).fold(String::from("services:\n"), |mut text, number| {
                text.push_str(&service(number, self.endpoints));
                text
            })
        };
        begins.map(text).collect()
    }

    /// Writes its files, and gives their directory.
    pub fn write(self, lab: &Lab) -> anyhow::Result<PathBuf> {
        let directory = format!("size-{}-{}", self.services, self.endpoints);
        let mut last = None;
        for (number, text) in self.texts().into_iter().enumerate() {
            last = Some(lab.write(&format!("{directory}/part-{number}.yaml"), text)?);
        }
        let last = last.context("a size has at least one service")?;
        Ok(last.parent().context("a file is in a directory")?.to_owned())
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (services, endpoints) = (grouped(self.services.into()), self.all_endpoints());
        let plural = |count| if count == 1 { "" } else { "s" };
        let (many, all) = (plural(self.services), plural(endpoints));
        write!(f, "{services} service{many}, {} endpoint{all}", grouped(endpoints.into()))
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "write SERVICESxENDPOINTS, such as 1000x10 for ten endpoints of each of a thousand services, up \
                 to {MOST_SERVICES}x16"
            )
        };
        let (services, endpoints) = text.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str, most: u32| {
            let number = text.parse::<u32>().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(wrong)
        };
        let (services, endpoints) =
            (number(services, MOST_SERVICES)?, number(endpoints, MOST_ENDPOINTS)?);
        let all = u64::from(services) * u64::from(endpoints);
        if all > MOST_ALL_ENDPOINTS {
            return Err(format!(
                "{endpoints} endpoints of each of {services} services are {}, and no configuration has more than \
                 {}",
                grouped(all),
                grouped(MOST_ALL_ENDPOINTS)
            ));
        }
        Ok(Self { services, endpoints })
    }
}

/// The virtual address of a service.
pub fn address(number: u32) -> Ipv4Addr {
    let [_, _, high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 97, high, low)
}

/// A service in as few bytes as a person would still write.
fn service(number: u32, endpoints: u32) -> String {
    let mut text = format!(
        "  - {{name: s{number}, addresses: [{}], ports: [{{name: m, port: {PORT}, target_port: \
         {TARGET_PORT}}}], endpoints: [",
        address(number)
    );
    for endpoint in 1..=endpoints {
        let [_, _, high, low] = endpoint.to_be_bytes();
        let comma = if endpoint == 1 { "" } else { ", " };
        text.push_str(&format!("{comma}{{address: 127.1.{high}.{low}}}"));
    }
    text.push_str("]}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_it_is_written() {
        assert_eq!("1000x10".parse(), Ok(Size { services: 1_000, endpoints: 10 }));
        assert_eq!(
            Size { services: 1_000, endpoints: 10 }.to_string(),
            "1,000 services, 10,000 endpoints"
        );
        for wrong in ["", "10", "0x1", "1x0", "70000x1", "ax1", "1000x10000"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_largest_size_fits_what_is_read() {
        let texts = Size { services: 65_536, endpoints: 16 }.texts();
        assert!(texts.iter().all(|text| text.len() <= 16 * 1024 * 1024));
        assert!(texts.iter().map(String::len).sum::<usize>() <= 32 * 1024 * 1024);
    }
}
