//! The daemon's settings: one struct, read once at start, checked with messages that name the field.
//!
//! Order: defaults, then the TOML file, then environment variables. Names are those of Mattermost's rtcd where it has
//! the same setting, so that its Helm values and habits carry over. `config.sample.toml` is generated from the table
//! below and compared by a test.

mod parse;
mod sample;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rtcd_core::shards::SHARDS_MAX;

pub(crate) use parse::tenant_name;
pub use parse::{HostOverride, Secret};
pub use sample::sample_toml;

/// One line of the settings table.
pub(crate) struct Field {
    /// TOML key, dotted.
    pub(crate) key: &'static str,
    /// Environment variable.
    pub(crate) env: &'static str,
    /// Default, as text.
    pub(crate) default: &'static str,
    /// What it does.
    pub(crate) doc: &'static [&'static str],
    /// Printed as set/unset only.
    pub(crate) secret: bool,
}

macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $field:ident: $type:ty = ($key:literal, $env:literal, $default:literal, $parse:path $(, $secret:ident)?); )+) => {
        /// Everything that can be set.
        #[derive(Clone)]
        pub struct Config { $( $(#[doc = $doc])+ pub $field: $type, )+ }

        pub(crate) const FIELDS: &[Field] = &[ $( Field {
            key: $key, env: $env, default: $default, doc: &[$($doc),+],
            secret: settings!(@secret $($secret)?),
        }, )+ ];

        impl Config {
            fn from_texts(texts: &BTreeMap<&'static str, (String, Origin)>) -> Result<Self, ConfigError> {
                Ok(Self { $( $field: {
                    let (text, origin) = texts.get($key).ok_or(ConfigError::Incomplete($key))?;
                    $parse(text).map_err(|reason| ConfigError::Field { key: $key, env: $env, origin: origin.clone(), reason })?
                }, )+ })
            }
        }
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

settings! {
    /// Address of the HTTP and gRPC port: signalling, media tap, /metrics, /healthz, /readyz. An empty host means every interface.
    /// Keep it on loopback or an internal network: it is not meant for browsers.
    http_listen: SocketAddr = ("api.http.listen_address", "RTCD_API_HTTP_LISTENADDRESS", "127.0.0.1:8045", parse::listen_address);
    /// Addresses to receive media on over UDP, comma separated. Empty: every interface.
    ice_address_udp: Vec<IpAddr> = ("rtc.ice_address_udp", "RTCD_RTC_ICEADDRESSUDP", "", parse::addresses);
    /// UDP port of all media. 0 takes any free port, for tests.
    ice_port_udp: u16 = ("rtc.ice_port_udp", "RTCD_RTC_ICEPORTUDP", "8443", parse::port);
    /// Addresses to receive media on over TCP, comma separated. Empty: every interface.
    ice_address_tcp: Vec<IpAddr> = ("rtc.ice_address_tcp", "RTCD_RTC_ICEADDRESSTCP", "", parse::addresses);
    /// TCP port of all media, for networks that block UDP. 0 takes any free port, for tests.
    ice_port_tcp: u16 = ("rtc.ice_port_tcp", "RTCD_RTC_ICEPORTTCP", "8443", parse::port);
    /// Use IPv6 addresses too, where interfaces have them.
    enable_ipv6: bool = ("rtc.enable_ipv6", "RTCD_RTC_ENABLEIPV6", "true", parse::boolean);
    /// Address offered to clients instead of the local ones: an IP address, a host name (looked up once at start), or pairs
    /// `external/internal,external/internal`. Set it behind NAT and in containers.
    ice_host_override: Option<HostOverride> = ("rtc.ice_host_override", "RTCD_RTC_ICEHOSTOVERRIDE", "", parse::host_override);
    /// Port offered to clients instead of the ones bound, when a NAT maps it. Empty: the bound ports.
    ice_host_port_override: Option<u16> = ("rtc.ice_host_port_override", "RTCD_RTC_ICEHOSTPORTOVERRIDE", "", parse::optional_port);
    /// Media threads. 0: one per core. More than cores only costs.
    shards: usize = ("rtc.shards", "RTCD_RTC_SHARDS", "0", parse::shards);
    /// Participants of one call that a media thread takes before the call spreads to another one. Within a thread nothing has to
    /// cross; a call on several uses their cores together.
    participants_per_shard: usize = ("rtc.participants_per_shard", "RTCD_RTC_PARTICIPANTSPERSHARD", "48", parse::count);
    /// Send trains of equal packets to one receiver in one call (UDP_SEGMENT). Halves the cost of video; the daemon
    /// turns it off by itself where the kernel or card refuses.
    gso: bool = ("rtc.gso", "RTCD_RTC_GSO", "true", parse::boolean);
    /// Datagrams per second that a media thread sends from which on it waits, up to 2 ms, so that several sounds for one receiver leave
    /// in one call: a third to a half less CPU for one millisecond. 0: it never waits. Without `rtc.gso` it never does either.
    gather_from: Option<u64> = ("rtc.gather_from", "RTCD_RTC_GATHERFROM", "40000", parse::or_never);
    /// Choose AES-256-GCM before AES-128-GCM for media. Costs the same here; a policy may demand it.
    prefer_aes256: bool = ("rtc.prefer_aes256", "RTCD_RTC_PREFERAES256", "false", parse::boolean);
    /// Microphones of one call that are forwarded at once: the loudest so many. Who talks keeps its place between words, and
    /// the loudest is never left out; recordings and captions get everybody. 0: all, at most 64.
    audio_top_n: usize = ("rtc.audio_top_n", "RTCD_RTC_AUDIOTOPN", "5", parse::audio_top_n);
    /// Seconds a participant is kept when its signalling or its media is gone. Too short: a changed network ends calls;
    /// too long: absent people stay on screen.
    grace: Duration = ("rtc.grace_s", "RTCD_RTC_GRACES", "30", parse::seconds);
    /// Seconds a call stays open when the last one has left, so that a page that reloads finds it again, with its recording
    /// and captions. (LiveKit: departure_timeout.)
    departure_timeout: Duration = ("rtc.departure_timeout_s", "RTCD_RTC_DEPARTURETIMEOUTS", "20", parse::seconds);
    /// Participants this node takes. More are refused with a reason.
    participants_max: usize = ("rtc.participants_max", "RTCD_RTC_PARTICIPANTSMAX", "5000", parse::count);
    /// Shared secret of the message servers' signalling streams and bearer of the unary calls. At least 16 characters.
    signal_token: Secret = ("signal.token", "RTCD_SIGNAL_TOKEN", "", parse::secret, secret);
    /// Tokens of single tenants, `tenant=token,tenant=token`. A tenant named here is refused the shared token, and its
    /// token opens nothing else.
    tenant_tokens: Vec<(String, Secret)> = ("signal.tenant_tokens", "RTCD_SIGNAL_TENANTTOKENS", "", parse::tenant_tokens, secret);
    /// HS256 key of the tokens that open a media tap; the offloader has the same one. At least 16 characters.
    tap_secret: Secret = ("tap.secret", "RTCD_TAP_SECRET", "", parse::secret, secret);
    /// Stable name of this node, in logs, metrics and the ops page. Empty: the host name.
    node_id: String = ("node.id", "RTCD_NODE_ID", "", parse::node_id);
    /// Seconds SIGTERM waits for running calls before it ends them. New calls are refused meanwhile; a second signal ends at once.
    drain_deadline: Duration = ("node.drain_deadline_s", "RTCD_NODE_DRAINDEADLINES", "30", parse::seconds);
    /// Log level: error, warn, info, debug, trace, or a filter like `info,rtcd::shard=debug`. Addresses and names appear only at debug.
    log_level: String = ("logger.level", "RTCD_LOGGER_LEVEL", "info", parse::log_level);
}

/// Where a value came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The TOML file.
    File,
    /// An environment variable.
    Environment,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("cannot read the configuration file {path}: {error}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file is not valid TOML: {0}")]
    NotToml(#[from] toml::de::Error),
    /// One value is wrong.
    #[error("{key} (environment {env}, taken from the {}): {reason}", match origin { Origin::Default => "default", Origin::File => "file", Origin::Environment => "environment" })]
    Field {
        /// TOML key.
        key: &'static str,
        /// Environment variable.
        env: &'static str,
        /// Where the value came from.
        origin: Origin,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Cannot happen: a field of the table without a value.
    #[error("{0} has no value")]
    Incomplete(&'static str),
}

/// Settings with what is worth saying about them.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Keys of the file that nothing here uses (Mattermost's rtcd has more settings).
    pub unused: Vec<String>,
}

impl Config {
    /// Reads file and environment. A missing file is not an error, as with Mattermost's rtcd; then the defaults hold.
    ///
    /// # Errors
    /// Text naming the field, its variable and what to change.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(ConfigError::Unreadable { path: path.display().to_string(), error }),
        };
        Self::from_sources(text.as_deref(), &|name| std::env::var(name).ok())
    }

    /// As [`Config::load`], from given text and variables.
    ///
    /// # Errors
    /// As there.
    pub fn from_sources(file: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
        let mut texts: BTreeMap<&'static str, (String, Origin)> =
            FIELDS.iter().map(|field| (field.key, (field.default.to_owned(), Origin::Default))).collect();
        let mut unused = Vec::new();
        if let Some(file) = file {
            let mut flat = Vec::new();
            flatten("", &toml::Value::Table(file.parse::<toml::Table>()?), &mut flat);
            for (key, text) in flat {
                // Matched without regard to case, as rtcd's TOML reader does.
                match FIELDS.iter().find(|field| field.key.eq_ignore_ascii_case(&key)) {
                    Some(field) => drop(texts.insert(field.key, (text, Origin::File))),
                    None => unused.push(key),
                }
            }
        }
        for field in FIELDS {
            if let Some(text) = env(field.env) {
                texts.insert(field.key, (text, Origin::Environment));
            }
        }
        Ok(Loaded { config: Self::from_texts(&texts)?, unused })
    }

    /// The settings as they hold, one line each, secrets as set or unset.
    #[must_use]
    pub fn describe(file: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        let mut flat = Vec::new();
        if let Some(Ok(table)) = file.map(str::parse::<toml::Table>) {
            flatten("", &toml::Value::Table(table), &mut flat);
        }
        FIELDS
            .iter()
            .map(|field| {
                let text = env(field.env)
                    .or_else(|| flat.iter().find(|(key, _)| key.eq_ignore_ascii_case(field.key)).map(|(_, text)| text.clone()))
                    .unwrap_or_else(|| field.default.to_owned());
                let shown = match (field.secret, text.is_empty()) {
                    (true, true) => "unset".to_owned(),
                    (true, false) => "set".to_owned(),
                    (false, _) => text,
                };
                (field.key, shown)
            })
            .collect()
    }

    /// Shards to start: the setting, or one per core, at most what a ufrag can name.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.shards == 0 { cores } else { self.shards }.clamp(1, SHARDS_MAX)
    }
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, inner, into);
            }
        }
        toml::Value::String(text) => into.push((prefix.to_owned(), text.clone())),
        toml::Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            into.push((prefix.to_owned(), parts.join(",")));
        }
        other @ (toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_)) => {
            into.push((prefix.to_owned(), other.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(file: Option<&str>, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        Config::from_sources(file, &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
                .or_else(|| matches!(name, "RTCD_SIGNAL_TOKEN" | "RTCD_TAP_SECRET").then(|| "0123456789abcdef".to_owned()))
        })
    }

    #[test]
    fn environment_wins_over_file_and_file_over_default() {
        let file = "[rtc]\nice_port_udp = 9000\nICE_Port_TCP = 9001\n[api]\nhttp.listen_address = \":8045\"\n";
        let loaded = with(Some(file), &[("RTCD_RTC_ICEPORTUDP", "9100")]).expect("valid");
        assert_eq!((loaded.config.ice_port_udp, loaded.config.ice_port_tcp), (9100, 9001));
        assert_eq!(loaded.config.http_listen, "0.0.0.0:8045".parse::<SocketAddr>().expect("an address"));
    }

    #[test]
    fn a_bad_value_names_field_variable_and_way_out() {
        let error = with(None, &[("RTCD_RTC_ICEPORTUDP", "79")]).err().expect("refused").to_string();
        assert!(error.contains("rtc.ice_port_udp") && error.contains("RTCD_RTC_ICEPORTUDP") && error.contains("80"), "{error}");
        let error = with(None, &[("RTCD_SIGNAL_TOKEN", "short")]).err().expect("refused").to_string();
        assert!(error.contains("signal.token") && !error.contains("short\""), "{error}");
    }

    #[test]
    fn settings_of_the_original_that_mean_nothing_here_are_named_not_refused() {
        let loaded = with(Some("[store]\ndata_source = \"/tmp/x\"\n[rtc]\nudp_sockets_count = 5\n"), &[]).expect("valid");
        assert_eq!(loaded.unused, ["rtc.udp_sockets_count", "store.data_source"]);
    }

    #[test]
    fn secrets_are_never_described() {
        let shown = Config::describe(None, &|name| (name == "RTCD_SIGNAL_TOKEN").then(|| "0123456789abcdef".to_owned()));
        assert!(shown.contains(&("signal.token", "set".to_owned())));
        assert!(shown.contains(&("tap.secret", "unset".to_owned())));
        assert!(shown.iter().all(|(_, text)| !text.contains("0123456789abcdef")));
    }

    #[test]
    fn the_sample_file_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.sample.toml");
        if std::env::var_os("UPDATE_SAMPLES").is_some() {
            std::fs::write(&path, sample_toml()).expect("writable");
        }
        let committed = std::fs::read_to_string(&path).expect("config.sample.toml is committed");
        assert_eq!(committed, sample_toml(), "run the test once with UPDATE_SAMPLES=1");
        // With every line uncommented it says the defaults, so it must load once the secrets are there.
        let live: String =
            committed.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).fold(String::new(), |all, line| all + line + "\n");
        let secrets =
            live.replace("token = \"\"", "token = \"0123456789abcdef\"").replace("secret = \"\"", "secret = \"0123456789abcdef\"");
        let loaded = Config::from_sources(Some(&secrets), &|_| None).expect("the sample is valid");
        assert!(loaded.unused.is_empty(), "{:?}", loaded.unused);
    }
}
