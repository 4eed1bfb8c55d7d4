//! From text to values, with what to do when it is not one.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use rtcd_core::shards::SHARDS_MAX;

use crate::limits::TENANT_LEN_MAX;

/// A secret: cannot be printed, compared in constant time.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret from its bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes, for a key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `given` is it, in a time that does not tell how much of it is right.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, given).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is offered to clients instead of local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostOverride {
    /// One address for everything.
    Single(IpAddr),
    /// `(external, internal)` pairs.
    Map(Vec<(IpAddr, IpAddr)>),
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("{text:?} is not an address with a port; write 127.0.0.1:8045, [::1]:8045 or :8045"))
}

pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse().map_err(|_| format!("{part:?} is not an IP address; write addresses separated by commas, or nothing for all"))
        })
        .collect()
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(port) if port == 0 || (80..=49_151).contains(&port) => Ok(port),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a port; use 80 to 49151")),
    }
}

pub(super) fn optional_port(text: &str) -> Result<Option<u16>, String> {
    if text.trim().is_empty() { Ok(None) } else { port(text).map(Some) }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn host_override(text: &str) -> Result<Option<HostOverride>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let ip = |part: &str| {
        part.trim()
            .parse::<IpAddr>()
            .map_err(|_| format!("{part:?} is not an IP address; write external/internal pairs separated by commas"))
    };
    if text.contains('/') {
        let pairs = text
            .split(',')
            .map(|pair| {
                let (external, internal) = pair.split_once('/').ok_or_else(|| format!("{pair:?} is not a pair external/internal"))?;
                Ok((ip(external)?, ip(internal)?))
            })
            .collect::<Result<Vec<_>, String>>()?;
        return Ok(Some(HostOverride::Map(pairs)));
    }
    if let Ok(ip) = text.parse() {
        return Ok(Some(HostOverride::Single(ip)));
    }
    // A name is looked up once, here: a failing lookup must not make a join fail later.
    let found = (text, 0)
        .to_socket_addrs()
        .map_err(|error| format!("{text:?} is neither an IP address nor a host name that can be looked up ({error})"))?;
    let mut ips: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.first().map(|ip| Some(HostOverride::Single(*ip))).ok_or_else(|| format!("{text:?} has no address"))
}

pub(super) fn shards(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(shards) if shards <= SHARDS_MAX => Ok(shards),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number of threads; use 0 (one per core) to {}", SHARDS_MAX)),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number above 0")),
    }
}

pub(super) fn or_never(text: &str) -> Result<Option<u64>, String> {
    match text.trim().parse::<u64>() {
        Ok(count) => Ok((count > 0).then_some(count)),
        Err(_) => Err(format!("{text:?} is not a number")),
    }
}

pub(super) fn audio_top_n(text: &str) -> Result<usize, String> {
    let most = rtcd_core::limits::AUDIO_TOP_MAX;
    match text.trim().parse::<usize>() {
        Ok(count) if count <= most => Ok(count),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number of microphones; use 0 (all) to {most}")),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse::<u64>() {
        Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number of seconds up to 86400")),
    }
}

pub(super) fn secret(text: &str) -> Result<Secret, String> {
    if text.is_empty() {
        Err("is not set; give the same secret here and to the other side, for example from `openssl rand -hex 32`".to_owned())
    } else if text.len() < 16 {
        Err("is shorter than 16 characters and could be guessed; use `openssl rand -hex 32`".to_owned())
    } else {
        Ok(Secret(text.as_bytes().to_vec()))
    }
}

pub(super) fn tenant_tokens(text: &str) -> Result<Vec<(String, Secret)>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (tenant, token) = part.split_once('=').ok_or("has a part without `=`; write tenant=token,tenant=token")?;
            if !tenant_name(tenant) {
                return Err(format!("{tenant:?} is not a tenant name; use 1 to {TENANT_LEN_MAX} letters, digits, - and _"));
            }
            Ok((tenant.to_owned(), secret(token).map_err(|reason| format!("the token of tenant {tenant} {reason}"))?))
        })
        .collect()
}

/// Whether a text can name a tenant.
pub(crate) fn tenant_name(text: &str) -> bool {
    (1..=TENANT_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

pub(super) fn node_id(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        let host = rustix::system::uname();
        return Ok(host.nodename().to_string_lossy().into_owned());
    }
    if text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} cannot name a node; use up to 128 printable characters without blanks"))
    }
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    let text = if text.trim().is_empty() { "info" } else { text.trim() };
    match tracing_subscriber::EnvFilter::try_new(text.to_ascii_lowercase()) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(error) => Err(format!("{text:?} is not a log level or filter ({error}); use error, warn, info, debug or trace")),
    }
}
