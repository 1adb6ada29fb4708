//! Where requests may go: the policy against requests that a configuration, or somebody who may write it, sends inside.
//!
//! A target is checked twice: its writing when it is read ([`Policy::target`]), and every address that its name resolves to
//! right before the connection ([`Policy::address`]); the connection goes to the checked address, so a name that resolves to
//! something else a moment later gains nothing. Redirects are not followed and proxies of the environment are not used.
//!
//! What always holds: an address is allowed when it is a public unicast address, or lies in a network of the allow list. An
//! IPv6 address that carries an IPv4 one (mapped, compatible, translated, 6to4, NAT64, Teredo, ISATAP) is allowed when a
//! network of the list holds it or what it carries, or when it carries a public one by the well-known prefix of NAT64.
//! A host that is a number in any writing but four plain decimal parts is refused, for programs read those differently.
//! Messages name the host, never the path or query of an address: webhook addresses are secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use url::{Host, Url};

use crate::limits::MAIL_PORTS;

/// Why a request may not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutboundError {
    /// It is no address that can be read.
    #[error("the address is none, or is longer than 2048 bytes")]
    Shape,
    /// Something else than http and https.
    #[error("the scheme {0:?} is not allowed: https, or http")]
    Scheme(String),
    /// `user:password@`.
    #[error("the address of {0} holds a user or a password")]
    User(String),
    /// A port that is none of the usual ones.
    #[error(
        "the port {port} of {host} is not allowed: 80, 443 and 8443 are, 25, 465, 587 and 2525 for mail, and those of the allow list"
    )]
    Port {
        /// The host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A name of the inside.
    #[error("the host {0} is a name of the inside: allow it by name, or its network, if it is meant")]
    Name(String),
    /// A number written otherwise than in four decimal parts.
    #[error("the host {0} is a number in an unusual writing: write it in four decimal parts")]
    Number(String),
    /// A network that is not public.
    #[error("the address {address} ({network}) is not public: allow its network if it is meant")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is.
        network: &'static str,
    },
}

/// A network: an address and the bits of it that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or one address.
    #[must_use]
    pub fn read(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Network { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// What is allowed besides public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Networks that are meant.
    pub networks: Vec<Network>,
    /// Ports besides 80, 443 and 8443.
    pub ports: Vec<u16>,
    /// Host names of the inside that are meant, lower case. Their addresses have to be allowed as well.
    pub names: Vec<String>,
}

/// A target whose writing is allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
}

/// Shows the host alone.
impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}:{})", self.host(), self.port())
    }
}

impl Target {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        host_text(&self.url)
    }

    /// The address, when the host is one.
    #[must_use]
    pub fn literal(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Path and query, for the request line.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}{query}", self.url.path())
    }

    /// What stands in the `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or("");
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

fn host_text(url: &Url) -> String {
    url.host_str().unwrap_or("").trim_matches(['[', ']']).trim_end_matches('.').to_owned()
}

impl Policy {
    /// Checks the writing of a target, and its address when its host is one.
    ///
    /// # Errors
    ///
    /// When it may not be spoken to, whatever it resolves to.
    pub fn target(&self, text: &str) -> Result<Target, OutboundError> {
        self.checked(text, &[80, 443, 8443])
    }

    /// Checks a mail server's host, as URLs write it, and its port.
    ///
    /// # Errors
    ///
    /// As [`Policy::target`].
    pub fn mail_server(&self, host: &str, port: u16) -> Result<Target, OutboundError> {
        self.checked(&format!("https://{host}:{port}/"), &MAIL_PORTS)
    }

    fn checked(&self, text: &str, ports: &[u16]) -> Result<Target, OutboundError> {
        if text.len() > 2_048
            || text.chars().any(|c| c.is_control() || c.is_whitespace())
            || text.contains('\\')
        {
            return Err(OutboundError::Shape);
        }
        let url = Url::parse(text).map_err(|_| OutboundError::Shape)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::Scheme(url.scheme().chars().take(20).collect()));
        }
        let host = host_text(&url);
        if !url.username().is_empty() || url.password().is_some() || raw_authority(text).contains('@') {
            return Err(OutboundError::User(host));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        if !ports.contains(&port) && !self.ports.contains(&port) {
            return Err(OutboundError::Port { host, port });
        }
        match url.host() {
            Some(Host::Ipv4(address)) => {
                // The standard of addresses reads 0x7f.1, 2130706433 and 0177.0.0.1 as 127.0.0.1, others read them otherwise.
                if raw_host(text).trim_end_matches('.') != address.to_string() {
                    return Err(OutboundError::Number(address.to_string()));
                }
                self.address(IpAddr::V4(address))?;
            }
            Some(Host::Ipv6(address)) => self.address(IpAddr::V6(address))?,
            Some(Host::Domain(_)) if is_of_the_inside(&host) && !self.names.contains(&host) => {
                return Err(OutboundError::Name(host));
            }
            Some(Host::Domain(_)) => {}
            None => return Err(OutboundError::Shape),
        }
        Ok(Target { url })
    }

    /// Checks an address that a connection is about to go to.
    ///
    /// # Errors
    ///
    /// When it is not public and not in an allowed network.
    pub fn address(&self, address: IpAddr) -> Result<(), OutboundError> {
        let is_named = |address| self.networks.iter().any(|network| network.contains(address));
        if is_named(address) {
            return Ok(());
        }
        let network = match address {
            IpAddr::V4(v4) => special_v4(v4),
            IpAddr::V6(v6) => match carried_v4(v6) {
                // What an allowed IPv4 network carries in IPv6 is as allowed as itself.
                Some(carried) if is_named(IpAddr::V4(carried)) => None,
                // A public one still goes through a translator that is not named, so only the well-known prefix of NAT64 is
                // let through.
                Some(carried) => special_v4(carried)
                    .or_else(|| (!is_well_known_nat64(v6)).then_some("carries an IPv4 address")),
                None => special_v6(v6),
            },
        };
        network.map_or(Ok(()), |network| Err(OutboundError::Address { address, network }))
    }
}

/// What stands between `//` and the next `/`, `?` or `#`.
fn raw_authority(text: &str) -> &str {
    let behind = text.split_once("//").map_or("", |(_, behind)| behind);
    behind.split(['/', '?', '#']).next().unwrap_or("")
}

fn raw_host(text: &str) -> &str {
    let authority = raw_authority(text);
    authority.split_once(':').map_or(authority, |(host, _)| host)
}

/// Names that public resolvers do not know, and those that clouds give to what must not be asked.
fn is_of_the_inside(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    !host.contains('.')
        || [
            ".localhost",
            ".local",
            ".internal",
            ".intranet",
            ".lan",
            ".home",
            ".corp",
            ".private",
            ".home.arpa",
            ".in-addr.arpa",
            ".ip6.arpa",
            ".onion",
            ".test",
            ".invalid",
            ".cluster.local",
            ".svc",
        ]
        .iter()
        .any(|end| host.ends_with(end))
}

fn is_well_known_nat64(address: Ipv6Addr) -> bool {
    address.segments().starts_with(&[0x64, 0xff9b, 0, 0, 0, 0])
}

/// The IPv4 address that an IPv6 one carries.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // Mapped, and the compatible ones that are no more; `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(v4(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 || low > 1 => Some(v4(high, low)),
        // Translated: ::ffff:0:a.b.c.d.
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        // NAT64, well-known and local.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x64, 0xff9b, 1, .., high, low] => Some(v4(high, low)),
        // 6to4.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Teredo: the client's address is inverted.
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

/// What an IPv4 address is, if it is not public: the registry of special addresses.
fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "this network",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [100, 64..=127, ..] => "shared by a provider",
        [127, ..] => "loopback",
        [169, 254, ..] => "link-local, where clouds keep their metadata",
        [192, 0, 0, _] => "protocol assignments",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "documentation",
        [192, 88, 99, _] => "6to4 relay",
        [198, 18..=19, ..] => "benchmarks",
        [168, 63, 129, 16] => "a cloud's wire server",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

/// What an IPv6 address is, if it is not public.
fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => "documentation",
        [0x2001, 0..=0x01ff, ..] => "protocol assignments",
        [0x2000..=0x3fff, ..] => return None,
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xff00..=0xffff, ..] => "multicast",
        _ => "not assigned",
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        url: String,
        /// A word of the refusal; none when it is allowed.
        refused: Option<String>,
        #[serde(default)]
        networks: Vec<String>,
        #[serde(default)]
        ports: Vec<u16>,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        resolves_to: Vec<IpAddr>,
    }

    #[derive(Deserialize)]
    struct Vectors {
        vector: Vec<Vector>,
    }

    /// Guarantees: every writing of the table is refused for the reason it names, or allowed, and there are enough of them.
    #[test]
    fn every_vector_of_the_table_is_refused_or_allowed_as_it_says() {
        let vectors: Vectors = toml::from_str(include_str!("../data/outbound.toml")).unwrap();
        let mut refused = 0;
        for vector in &vectors.vector {
            let policy = Policy {
                networks: vector.networks.iter().map(|text| Network::read(text).unwrap()).collect(),
                ports: vector.ports.clone(),
                names: vector.names.clone(),
            };
            let checked = policy.target(&vector.url).and_then(|target| {
                vector.resolves_to.iter().try_for_each(|address| policy.address(*address)).map(|()| target)
            });
            match (&vector.refused, checked) {
                (None, checked) => assert!(checked.is_ok(), "{}: {checked:?}", vector.url),
                (Some(word), Err(error)) => {
                    refused += 1;
                    assert!(
                        error.to_string().contains(word),
                        "{}: {error} does not say {word:?}",
                        vector.url
                    );
                    assert!(!error.to_string().contains("s3cr3t"), "{error} shows a path");
                }
                (Some(_), Ok(target)) => panic!("{} is let through as {target:?}", vector.url),
            }
        }
        assert!(refused >= 60, "only {refused} vectors are refused");
    }

    #[test]
    fn a_network_is_its_address_and_its_bits() {
        let network = Network::read("10.1.0.0/16").unwrap();
        assert!(
            network.contains("10.1.255.255".parse().unwrap())
                && !network.contains("10.2.0.0".parse().unwrap())
        );
        assert!(Network::read("0.0.0.0/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!Network::read("0.0.0.0/0").unwrap().contains("::1".parse().unwrap()));
        for text in ["10.0.0.0/33", "::/129", "10.0.0/8", "x", "10.0.0.0/-1"] {
            assert_eq!(Network::read(text), None, "{text}");
        }
    }

    /// Guarantees: of all first bytes of an IPv4 address, those of private use are refused in every way IPv6 can carry them.
    #[test]
    fn what_is_refused_plain_is_refused_carried() {
        let policy = Policy::default();
        for first in 0..=255_u8 {
            for second in [0_u8, 16, 64, 168, 254] {
                let v4 = Ipv4Addr::new(first, second, 1, 1);
                let [a, b] = [u16::from(first) << 8 | u16::from(second), 0x0101];
                let is_allowed = policy.address(IpAddr::V4(v4)).is_ok();
                for carrying in [
                    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, a, b),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                    Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
                    Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !a, !b),
                ] {
                    if policy.address(IpAddr::V6(carrying)).is_ok() {
                        assert!(is_allowed, "{carrying} carries {v4}");
                    }
                }
            }
        }
    }
}
