//! From text to values, with what to do when it is not one.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use rtcd_core::shards::SHARDS_MAX;

use crate::limits::{TENANT_LEN_MAX, WEBHOOK_URLS_MAX};

/// A drain that ends when the last one has left.
pub(crate) const DRAIN_WITHOUT_LIMIT: Duration = Duration::from_secs(10 * 365 * 86_400);

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

/// A port on which an offered address is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOverride {
    /// One for every machine.
    Single(u16),
    /// By local address: that of this machine holds.
    Map(Vec<(IpAddr, u16)>),
}

/// STUN or TURN servers that belong together.
#[derive(Clone, Debug)]
pub struct IceServer {
    /// All of one family: `stun:` and `stuns:`, or `turn:` and `turns:`.
    pub urls: Vec<String>,
    /// For long-term credentials; empty where there are none.
    pub username: String,
    /// The password to it.
    pub credential: Option<Secret>,
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let named = || full.to_socket_addrs().ok()?.min_by_key(SocketAddr::is_ipv6);
    let address = full.parse().ok().or_else(named);
    address.ok_or_else(|| format!("{text:?} is not an address with a port; write 127.0.0.1:8045, [::1]:8045 or :8045"))
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

pub(super) fn port_override(text: &str) -> Result<Option<PortOverride>, String> {
    let text = text.trim();
    let outside = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if (80..=49_151).contains(&port) => Ok(port),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a port; use 80 to 49151")),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if !text.contains('/') {
        return outside(text).map(|port| Some(PortOverride::Single(port)));
    }
    let mut map: Vec<(IpAddr, u16)> = Vec::new();
    for entry in text.split(',') {
        let (address, port) = entry.trim().split_once('/').ok_or_else(|| format!("{entry:?} is not a pair address/port"))?;
        let address = address.trim().parse().map_err(|_| format!("{address:?} is not an IP address; write address/port pairs"))?;
        let port = outside(port)?;
        if map.iter().any(|(known, _)| *known == address) {
            return Err(format!("the address {address} is there twice"));
        }
        if map.iter().any(|(_, known)| *known == port) {
            return Err(format!("the port {port} is there twice"));
        }
        map.push((address, port));
    }
    Ok(Some(PortOverride::Map(map)))
}

pub(super) fn ice_servers(text: &str) -> Result<Vec<IceServer>, String> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Urls {
        One(String),
        Several(Vec<String>),
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        urls: Urls,
        #[serde(default)]
        username: String,
        #[serde(default)]
        credential: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Form {
        Urls(Vec<String>),
        Entries(Vec<Entry>),
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let form = serde_json::from_str(text)
        .map_err(|_| "is neither a list of URLs nor one of { urls, username, credential }; write for example [\"stun:host:3478\"]")?;
    let servers: Vec<IceServer> = match form {
        Form::Urls(urls) if urls.is_empty() => Vec::new(),
        Form::Urls(urls) => vec![IceServer { urls, username: String::new(), credential: None }],
        Form::Entries(entries) => entries
            .into_iter()
            .map(|entry| IceServer {
                urls: match entry.urls {
                    Urls::One(url) => vec![url],
                    Urls::Several(urls) => urls,
                },
                username: entry.username,
                credential: (!entry.credential.is_empty()).then(|| Secret::new(entry.credential.as_bytes())),
            })
            .collect(),
    };
    for server in &servers {
        let families = server.urls.iter().map(|url| match url.split_once(':') {
            Some(("stun" | "stuns", _)) => Ok("stun"),
            Some(("turn" | "turns", _)) => Ok("turn"),
            _ => Err(format!("{url:?} is no URL of a STUN or TURN server; write stun:host:3478 or turn:host:3478")),
        });
        let families = families.collect::<Result<Vec<_>, _>>()?;
        match families.first() {
            None => return Err("has an entry without urls".to_owned()),
            Some(first) if families.iter().any(|family| family != first) => {
                return Err("has an entry with STUN and TURN URLs; give each its own entry".to_owned());
            }
            Some(_) => {}
        }
    }
    Ok(servers)
}

pub(super) fn optional_boolean(text: &str) -> Result<Option<bool>, String> {
    if text.is_empty() { Ok(None) } else { boolean(text).map(Some) }
}

#[allow(clippy::unnecessary_wraps, reason = "the table wants every reader in this form")]
pub(super) fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("should not be empty; name a folder".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn integer(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a whole number"))
}

pub(super) fn optional_positive(text: &str) -> Result<Option<i64>, String> {
    // Unset is another thing than set to nothing, but there is no number in either.
    if text.is_empty() {
        return Ok(None);
    }
    match text.trim().parse() {
        Ok(number) if number > 0 => Ok(Some(number)),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number above 0")),
    }
}

pub(super) fn nack_buffer_size(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(size) if size == 0 || (size.is_power_of_two() && (32..=8192).contains(&size)) => Ok(size),
        Ok(_) | Err(_) => Err(format!("{text:?} is not 0 or a power of two from 32 to 8192")),
    }
}

pub(super) fn minutes(text: &str) -> Result<Duration, String> {
    // Ten years; a clock can still add it.
    match text.trim().parse::<u64>() {
        Ok(minutes) if (1..=5_256_000).contains(&minutes) => Ok(Duration::from_secs(60 * minutes)),
        Ok(_) | Err(_) => Err(format!("{text:?} is not a number of minutes above 0")),
    }
}

/// `none` is ten years: as long as it takes, in a clock's reach.
pub(super) fn drain_deadline(text: &str) -> Result<Duration, String> {
    if text.trim().eq_ignore_ascii_case("none") { Ok(DRAIN_WITHOUT_LIMIT) } else { seconds(text) }
}

/// A level by its name in Mattermost's rtcd, as our filters have it; empty stays empty.
pub(super) fn level_name(text: &str) -> Result<String, String> {
    let name = match text.trim().to_ascii_lowercase().as_str() {
        "" => "",
        "panic" | "fatal" | "error" => "error",
        "warn" => "warn",
        "info" | "stdlog" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return Err(format!("{text:?} is not a log level; use error, warn, info, debug or trace")),
    };
    Ok(name.to_owned())
}

pub(super) fn any_secret(text: &str) -> Result<Option<Secret>, String> {
    Ok((!text.is_empty()).then(|| Secret(text.as_bytes().to_vec())))
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

pub(super) fn secret(text: &str) -> Result<Option<Secret>, String> {
    if text.is_empty() {
        Ok(None)
    } else if text.len() < 16 {
        Err("is shorter than 16 characters and could be guessed; use `openssl rand -hex 32`".to_owned())
    } else {
        Ok(Some(Secret(text.as_bytes().to_vec())))
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
            let token = secret(token).map_err(|reason| format!("the token of tenant {tenant} {reason}"))?;
            Ok((tenant.to_owned(), token.ok_or_else(|| format!("the token of tenant {tenant} is empty"))?))
        })
        .collect()
}

pub(super) fn api_keys(text: &str) -> Result<Vec<(String, Secret)>, String> {
    let mut keys: Vec<(String, Secret)> = Vec::new();
    for part in text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        let (key, given) = part.split_once(':').ok_or("has a part without `:`; write key: secret, key: secret")?;
        let (key, given) = (key.trim(), given.trim());
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{key:?} is not the name of a key; write key: secret, key: secret"));
        }
        if keys.iter().any(|(known, _)| known == key) {
            return Err(format!("the key {key} has two secrets; give each key once"));
        }
        let given = secret(given).map_err(|reason| format!("the secret of key {key} {reason}"))?;
        keys.push((key.to_owned(), given.ok_or_else(|| format!("the key {key} has no secret; write key: secret, key: secret"))?));
    }
    Ok(keys)
}

pub(super) fn offloader_url(text: &str) -> Result<Option<reqwest::Url>, String> {
    match reqwest::Url::parse(text.trim()) {
        _ if text.trim().is_empty() => Ok(None),
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(Some(url)),
        Ok(_) | Err(_) => Err(format!("{text:?} is no address of an offloader; write http://host:4545")),
    }
}

pub(super) fn webhook_urls(text: &str) -> Result<Vec<reqwest::Url>, String> {
    let urls = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| match reqwest::Url::parse(part) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        // A URL may have a secret in it, so it is not repeated.
        Ok(_) | Err(_) => Err("has a part that is no URL of a web server; write http://host/path or https://host/path".to_owned()),
    });
    let urls = urls.collect::<Result<Vec<_>, _>>()?;
    if urls.len() > WEBHOOK_URLS_MAX {
        return Err(format!("names more than {WEBHOOK_URLS_MAX} receivers; let one of them pass events on"));
    }
    Ok(urls)
}

pub(super) fn number(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
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
