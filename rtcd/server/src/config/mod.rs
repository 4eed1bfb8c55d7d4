//! The daemon's settings: one struct, read once at start, checked with messages that name the field.
//!
//! Order: defaults, then the TOML file, then environment variables. Names are those of Mattermost's rtcd where it has
//! the same setting, so that its files and Helm values work unchanged; where its default differs from ours and its clients are
//! served, its default holds (`original`). `config.sample.toml` is generated from the table below and compared by a test.

mod check;
mod flatten;
mod original;
mod parse;
mod sample;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rtcd_core::shards::SHARDS_MAX;

pub(crate) use parse::{DRAIN_WITHOUT_LIMIT, tenant_name};
pub use parse::{HostOverride, IceServer, PortOverride, Secret};
pub use sample::sample_toml;

use flatten::flatten;

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
    /// Keep it on loopback or an internal network: it is not meant for browsers. While Mattermost's clients are served, the default is
    /// `:8045`, as they and their probes expect.
    http_listen: SocketAddr = ("api.http.listen_address", "RTCD_API_HTTP_LISTENADDRESS", "127.0.0.1:8045", parse::listen_address);
    /// Serve that port over TLS (1.2 or newer, HTTP/1.1 and HTTP/2).
    http_tls: bool = ("api.http.tls.enable", "RTCD_API_HTTP_TLS_ENABLE", "false", parse::boolean);
    /// Its certificate with the chain, a PEM file.
    http_tls_cert_file: String = ("api.http.tls.cert_file", "RTCD_API_HTTP_TLS_CERTFILE", "", parse::text);
    /// The certificate's private key, a PEM file.
    http_tls_cert_key: String = ("api.http.tls.cert_key", "RTCD_API_HTTP_TLS_CERTKEY", "", parse::text);
    /// Whether an admin, who has the key below as password, may register and unregister Mattermost installations.
    enable_admin: bool = ("api.security.enable_admin", "RTCD_API_SECURITY_ENABLEADMIN", "false", parse::boolean);
    /// The admin's key.
    admin_secret_key: Option<Secret> = ("api.security.admin_secret_key", "RTCD_API_SECURITY_ADMINSECRETKEY", "", parse::any_secret, secret);
    /// Whether any Mattermost installation that reaches the port may register itself.
    allow_self_registration: bool = ("api.security.allow_self_registration", "RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "false", parse::boolean);
    /// Life of the bearer tokens that `/login` gives, minutes.
    session_cache_expiration: Duration = ("api.security.session_cache.expiration_minutes", "RTCD_API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "1440", parse::minutes);
    /// Addresses to receive media on over UDP, comma separated. Empty: every interface.
    ice_address_udp: Vec<IpAddr> = ("rtc.ice_address_udp", "RTCD_RTC_ICEADDRESSUDP", "", parse::addresses);
    /// UDP port of all media. 0 takes any free port, for tests.
    ice_port_udp: u16 = ("rtc.ice_port_udp", "RTCD_RTC_ICEPORTUDP", "8443", parse::port);
    /// Addresses to receive media on over TCP, comma separated. Empty: every interface.
    ice_address_tcp: Vec<IpAddr> = ("rtc.ice_address_tcp", "RTCD_RTC_ICEADDRESSTCP", "", parse::addresses);
    /// TCP port of all media, for networks that block UDP. 0 takes any free port, for tests.
    ice_port_tcp: u16 = ("rtc.ice_port_tcp", "RTCD_RTC_ICEPORTTCP", "8443", parse::port);
    /// Use IPv6 addresses too, where interfaces have them. While Mattermost's clients are served, the default is `false`.
    enable_ipv6: bool = ("rtc.enable_ipv6", "RTCD_RTC_ENABLEIPV6", "true", parse::boolean);
    /// Address offered to clients instead of the local ones: an IP address, a host name (looked up once at start), or pairs
    /// `external/internal,external/internal`. Set it behind NAT and in containers.
    ice_host_override: Option<HostOverride> = ("rtc.ice_host_override", "RTCD_RTC_ICEHOSTOVERRIDE", "", parse::host_override);
    /// Port offered to clients instead of the ones bound, where an address is offered that is not this machine's own: one port, or
    /// `address/port,address/port`, of which the entry with an address of this machine holds. Empty: the bound ports.
    ice_host_port_override: Option<PortOverride> = ("rtc.ice_host_port_override", "RTCD_RTC_ICEHOSTPORTOVERRIDE", "", parse::port_override);
    /// STUN and TURN servers of the site: URLs, or tables `{ urls, username, credential }`; in the environment as JSON. Where
    /// rtc.ice_host_override is not set, the first STUN server is asked at start what this node's addresses are outside. TURN servers are
    /// given to clients that join by LiveKit's protocol, our own pages among them; Mattermost's have theirs from the plugin.
    ice_servers: Vec<IceServer> = ("rtc.ice_servers", "RTCD_RTC_ICESERVERS", "", parse::ice_servers, secret);
    /// Secret of the TURN servers (coturn: static-auth-secret), from which clients get credentials of their own.
    turn_secret: Option<Secret> = ("rtc.turn.static_auth_secret", "RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", "", parse::any_secret, secret);
    /// How long such credentials hold, at most a week.
    turn_minutes: i64 = ("rtc.turn.credentials_expiration_minutes", "RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES", "1440", parse::integer);
    /// Accepted for Mattermost's sake, without effect: one socket per media thread does it.
    udp_sockets_count: Option<i64> = ("rtc.udp_sockets_count", "RTCD_RTC_UDPSOCKETSCOUNT", "", parse::optional_positive);
    /// Accepted for Mattermost's sake, without effect: packets are kept by time.
    nack_buffer_size: u16 = ("rtc.nack_buffer_size", "RTCD_RTC_NACKBUFFERSIZE", "256", parse::nack_buffer_size);
    /// Accepted for Mattermost's sake, without effect.
    nack_disable_copy: bool = ("rtc.nack_disable_copy", "RTCD_RTC_NACKDISABLECOPY", "true", parse::boolean);
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
    /// Shared secret of the message servers' signalling streams and bearer of the unary calls. At least 16 characters. A node that
    /// serves Mattermost alone needs none.
    signal_token: Option<Secret> = ("signal.token", "RTCD_SIGNAL_TOKEN", "", parse::secret, secret);
    /// Tokens of single tenants, `tenant=token,tenant=token`. A tenant named here is refused the shared token, and its
    /// token opens nothing else.
    tenant_tokens: Vec<(String, Secret)> = ("signal.tenant_tokens", "RTCD_SIGNAL_TENANTTOKENS", "", parse::tenant_tokens, secret);
    /// HS256 key of the tokens that open a media tap; the offloader has the same one. At least 16 characters. A node that serves
    /// Mattermost alone needs none.
    tap_secret: Option<Secret> = ("tap.secret", "RTCD_TAP_SECRET", "", parse::secret, secret);
    /// Serve Mattermost's Calls plugin. Empty: when there is neither signal.token nor livekit.keys, that is, with Mattermost's own
    /// settings alone.
    mattermost_enable: Option<bool> = ("mattermost.enable", "RTCD_MATTERMOST_ENABLE", "", parse::optional_boolean);
    /// Folder with the keys of registered Mattermost installations, in the layout that Mattermost's rtcd has there. Lost, they are
    /// locked out; so do not leave it in /tmp.
    data_source: String = ("store.data_source", "RTCD_STORE_DATASOURCE", "/tmp/rtcd_db", parse::not_empty);
    /// API keys of LiveKit's clients and server SDKs, `key: secret, key: secret`; several so that one can be replaced while the other
    /// still holds. A secret has at least 16 characters. Empty: this node speaks LiveKit's protocol with message servers only.
    /// (Environment LIVEKIT_KEYS, as LiveKit's own server reads it, is taken too.)
    livekit_keys: Vec<(String, Secret)> = ("livekit.keys", "RTCD_LIVEKIT_KEYS", "", parse::api_keys, secret);
    /// Whether who joins a room that is not there makes it. Otherwise a server does so first, or a token with `roomCreate`.
    livekit_auto_create: bool = ("livekit.auto_create", "RTCD_LIVEKIT_AUTOCREATE", "true", parse::boolean);
    /// Seconds a room that was made waits for the first one to join. (LiveKit: room.empty_timeout.)
    livekit_empty_timeout: Duration = ("livekit.empty_timeout_s", "RTCD_LIVEKIT_EMPTYTIMEOUTS", "300", parse::seconds);
    /// Participants of a room that was not given a number of its own. 0: as many as the node takes. (LiveKit: room.max_participants.)
    livekit_max_participants: u32 = ("livekit.max_participants", "RTCD_LIVEKIT_MAXPARTICIPANTS", "0", parse::number);
    /// Whether a server may switch on somebody's microphone or camera. (LiveKit: room.enable_remote_unmute.)
    livekit_remote_unmute: bool = ("livekit.enable_remote_unmute", "RTCD_LIVEKIT_ENABLEREMOTEUNMUTE", "false", parse::boolean);
    /// Where what happens in rooms of LiveKit's clients is told: `http` or `https` URLs, comma separated. Each gets LiveKit's webhooks,
    /// in order, with retries; the answer has to be a 2xx. (LiveKit: webhook.urls.)
    webhook_urls: Vec<reqwest::Url> = ("webhook.urls", "RTCD_WEBHOOK_URLS", "", parse::webhook_urls, secret);
    /// The key of livekit.keys that signs webhooks; receivers know its secret. (LiveKit: webhook.api_key.)
    webhook_api_key: String = ("webhook.api_key", "RTCD_WEBHOOK_APIKEY", "", parse::text);
    /// The offloader that records rooms for LiveKit's egress: its gRPC address, `http://host:port`. Empty: there is no egress.
    offloader_url: Option<reqwest::Url> = ("offloader.url", "RTCD_OFFLOADER_URL", "", parse::offloader_url);
    /// Its bearer token (OFFLOADER_TOKEN there).
    offloader_token: Option<Secret> = ("offloader.token", "RTCD_OFFLOADER_TOKEN", "", parse::secret, secret);
    /// Stable name of this node, in logs, metrics and the ops page. Empty: the host name.
    node_id: String = ("node.id", "RTCD_NODE_ID", "", parse::node_id);
    /// Seconds SIGTERM waits for running calls before it ends them, or `none`: as long as it takes, the default while Mattermost's
    /// clients are served. New calls are refused meanwhile; a second signal ends at once.
    drain_deadline: Duration = ("node.drain_deadline_s", "RTCD_NODE_DRAINDEADLINES", "30", parse::drain_deadline);
    /// Log level: error, warn, info, debug, trace, or a filter like `info,rtcd::shard=debug`. Addresses and names appear only at debug.
    log_level: String = ("logger.level", "RTCD_LOGGER_LEVEL", "info", parse::log_level);
    /// Log to the console (standard error). This or the file has to be on.
    log_console: bool = ("logger.enable_console", "RTCD_LOGGER_ENABLECONSOLE", "true", parse::boolean);
    /// Lines of JSON there. Empty: unless it is a terminal; while Mattermost's clients are served, the default is `false`.
    log_console_json: Option<bool> = ("logger.console_json", "RTCD_LOGGER_CONSOLEJSON", "", parse::optional_boolean);
    /// Level there: panic, fatal, error, warn, info, debug, trace or stdlog. Empty: logger.level.
    log_console_level: String = ("logger.console_level", "RTCD_LOGGER_CONSOLELEVEL", "", parse::level_name);
    /// Colours there. Empty: on a terminal; while Mattermost's clients are served, the default is `false`.
    log_colour: Option<bool> = ("logger.enable_color", "RTCD_LOGGER_ENABLECOLOR", "", parse::optional_boolean);
    /// Log to a file too. While Mattermost's clients are served, the default is `true`.
    log_file: bool = ("logger.enable_file", "RTCD_LOGGER_ENABLEFILE", "false", parse::boolean);
    /// Lines of JSON there.
    log_file_json: bool = ("logger.file_json", "RTCD_LOGGER_FILEJSON", "true", parse::boolean);
    /// Level there, as for the console.
    log_file_level: String = ("logger.file_level", "RTCD_LOGGER_FILELEVEL", "DEBUG", parse::level_name);
    /// The file. At 100 MB it is set aside under a name with the time, compressed, and kept for ever.
    log_file_location: String = ("logger.file_location", "RTCD_LOGGER_FILELOCATION", "rtcd.log", parse::text);
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
    /// Keys of the file that nothing here knows.
    pub unused: Vec<String>,
    /// Keys that were set and have no effect here.
    pub without_effect: Vec<&'static str>,
}

/// The text of every field, and where it came from.
type Texts = BTreeMap<&'static str, (String, Origin)>;

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
        let (texts, unused) = texts(file, env)?;
        let config = Self::from_texts(&texts)?;
        check::together(&config, &texts)?;
        let without_effect = original::WITHOUT_EFFECT.iter().copied();
        let without_effect = without_effect.filter(|key| texts.get(key).is_some_and(|(_, origin)| *origin != Origin::Default)).collect();
        Ok(Loaded { config, unused, without_effect })
    }

    /// The settings as they hold, one line each, secrets as set or unset.
    #[must_use]
    pub fn describe(file: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        // A file that cannot be read was told of before.
        let texts = texts(file, env).or_else(|_| texts(None, env)).map(|(texts, _)| texts).unwrap_or_default();
        FIELDS
            .iter()
            .filter_map(|field| {
                let text = &texts.get(field.key)?.0;
                let shown = match (field.secret, text.is_empty()) {
                    (true, true) => "unset".to_owned(),
                    (true, false) => "set".to_owned(),
                    (false, _) => text.clone(),
                };
                Some((field.key, shown))
            })
            .collect()
    }

    /// Whether Mattermost's clients are served.
    #[must_use]
    pub fn serves_mattermost(&self) -> bool {
        self.mattermost_enable.unwrap_or(self.signal_token.is_none() && self.livekit_keys.is_empty())
    }

    /// Shards to start: the setting, or one per core, at most what a ufrag can name.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if self.shards == 0 { cores } else { self.shards }.clamp(1, SHARDS_MAX)
    }
}

/// Names under which other servers know a setting of ours; ours wins.
const ALSO: &[(&str, &str)] = &[("livekit.keys", "LIVEKIT_KEYS")];

fn from_environment(field: &Field, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    env(field.env).or_else(|| ALSO.iter().filter(|(key, _)| *key == field.key).find_map(|(_, name)| env(name)))
}

/// What file and environment say, over the defaults; and the keys of the file that nothing here knows.
fn texts(file: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Result<(Texts, Vec<String>), ConfigError> {
    let mut texts: Texts = FIELDS.iter().map(|field| (field.key, (field.default.to_owned(), Origin::Default))).collect();
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
        if let Some(text) = from_environment(field, env) {
            texts.insert(field.key, (text, Origin::Environment));
        }
    }
    original::defaults(&mut texts);
    Ok((texts, unused))
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
        let file = "[store]\ndata_source = \"/tmp/x\"\nmore = 1\n[rtc]\nudp_sockets_count = 5\n[other]\nkey = 1\n";
        let loaded = with(Some(file), &[("RTCD_RTC_NACKDISABLECOPY", "F")]).expect("valid");
        assert_eq!(loaded.unused, ["other.key", "store.more"]);
        assert_eq!(loaded.without_effect, ["rtc.udp_sockets_count", "rtc.nack_disable_copy"]);
    }

    /// Nothing of ours is set: what Mattermost's rtcd has by default holds, and it starts.
    #[test]
    fn with_mattermosts_settings_alone_its_defaults_hold() {
        let alone = Config::from_sources(None, &|_| None).expect("starts").config;
        assert!(alone.serves_mattermost() && alone.signal_token.is_none() && alone.tap_secret.is_none());
        assert_eq!(alone.http_listen, "0.0.0.0:8045".parse::<SocketAddr>().expect("an address"));
        assert!(!alone.enable_ipv6 && alone.log_console && alone.log_file && alone.log_file_json);
        assert_eq!((alone.log_console_json, alone.log_colour), (Some(false), Some(false)));
        assert_eq!((alone.log_file_level.as_str(), alone.log_file_location.as_str()), ("debug", "rtcd.log"));
        assert_eq!((alone.ice_port_udp, alone.ice_port_tcp), (8443, 8443));
        assert!(!alone.http_tls && !alone.enable_admin && !alone.allow_self_registration);
        assert_eq!(alone.session_cache_expiration, Duration::from_secs(1440 * 60));
        assert_eq!(alone.data_source, "/tmp/rtcd_db");
        assert_eq!(alone.drain_deadline, DRAIN_WITHOUT_LIMIT);
        let set = |pairs: &[(&str, &str)]| {
            let of = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Config::from_sources(None, &of).map(|loaded| loaded.config)
        };
        let own =
            set(&[("RTCD_API_HTTP_LISTENADDRESS", "127.0.0.1:1"), ("RTCD_NODE_DRAINDEADLINES", "30"), ("RTCD_LOGGER_ENABLEFILE", "0")]);
        let own = own.expect("valid");
        assert_eq!((own.http_listen.port(), own.drain_deadline, own.log_file), (1, Duration::from_secs(30), false), "what is set holds");
        let ours = with(None, &[]).expect("valid").config;
        assert!(!ours.serves_mattermost() && !ours.log_file && ours.http_listen.ip().is_loopback() && ours.enable_ipv6);
        let both = with(None, &[("RTCD_MATTERMOST_ENABLE", "true")]).expect("valid").config;
        assert!(both.serves_mattermost() && both.signal_token.is_some() && both.log_file);
        let neither = set(&[("RTCD_MATTERMOST_ENABLE", "false")]).err().expect("nothing to serve").to_string();
        assert!(neither.contains("signal.token") && neither.contains("openssl"), "{neither}");
    }

    /// Chapter 1.2 of the contract, name by name: each is taken from the environment and from a file, and wrong values are refused.
    #[test]
    fn every_setting_of_the_original_is_known_under_its_names_and_checked() {
        let table: &[(&str, &str, &[&str], &[&str])] = &[
            (
                "api.http.listen_address",
                "RTCD_API_HTTP_LISTENADDRESS",
                &[":8045", "127.0.0.1:1", "[::1]:8045", "localhost:8045"],
                &["", "8045"],
            ),
            ("api.http.tls.enable", "RTCD_API_HTTP_TLS_ENABLE", &["false", "0", "f", "F", "FALSE", "False"], &["", "no", "true"]),
            ("api.http.tls.cert_file", "RTCD_API_HTTP_TLS_CERTFILE", &["", "/x"], &[]),
            ("api.http.tls.cert_key", "RTCD_API_HTTP_TLS_CERTKEY", &["", "/x"], &[]),
            ("api.security.enable_admin", "RTCD_API_SECURITY_ENABLEADMIN", &["false"], &["true", "2"]),
            ("api.security.admin_secret_key", "RTCD_API_SECURITY_ADMINSECRETKEY", &["", "x"], &[]),
            (
                "api.security.allow_self_registration",
                "RTCD_API_SECURITY_ALLOWSELFREGISTRATION",
                &["1", "t", "T", "TRUE", "true", "True"],
                &["yes"],
            ),
            (
                "api.security.session_cache.expiration_minutes",
                "RTCD_API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES",
                &["1", "1440"],
                &["0", "-1", "x", ""],
            ),
            ("rtc.ice_address_udp", "RTCD_RTC_ICEADDRESSUDP", &["", "127.0.0.1", "10.0.0.1, 10.0.0.2"], &["host", "10.0.0"]),
            ("rtc.ice_port_udp", "RTCD_RTC_ICEPORTUDP", &["80", "8443", "49151"], &["79", "49152", "-1", "x", ""]),
            ("rtc.ice_address_tcp", "RTCD_RTC_ICEADDRESSTCP", &["", "127.0.0.1"], &["host"]),
            ("rtc.ice_port_tcp", "RTCD_RTC_ICEPORTTCP", &["80", "49151"], &["79", "49152"]),
            ("rtc.enable_ipv6", "RTCD_RTC_ENABLEIPV6", &["true", "false"], &["x"]),
            (
                "rtc.ice_host_override",
                "RTCD_RTC_ICEHOSTOVERRIDE",
                &["", "1.1.1.1", "localhost", "1.1.1.1/10.0.0.1,2.2.2.2/10.0.0.2"],
                &["1.1.1.1/", "1.1.1.1/10.0.0.1,x"],
            ),
            (
                "rtc.ice_host_port_override",
                "RTCD_RTC_ICEHOSTPORTOVERRIDE",
                &["", "8443", "10.0.0.1/8443,10.0.0.2/8444"],
                &["79", "49152", "10.0.0.1/8443,10.0.0.1/8444", "10.0.0.1/8443,10.0.0.2/8443", "10.0.0.1/x", "x/8443"],
            ),
            (
                "rtc.ice_servers",
                "RTCD_RTC_ICESERVERS",
                &["[]", r#"["stun:a:3478","stuns:b"]"#, r#"[{"urls":["turn:a"],"username":"u","credential":"c"},{"urls":["stun:b"]}]"#],
                &["stun:a", r#"["http://a"]"#, r#"["stun:a","turn:b"]"#, r#"[{"urls":[]}]"#, r#"[{"username":"u"}]"#, "{}"],
            ),
            ("rtc.turn.static_auth_secret", "RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", &["", "x"], &[]),
            (
                "rtc.turn.credentials_expiration_minutes",
                "RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES",
                &["1440", "0", "20000"],
                &["x", ""],
            ),
            ("rtc.udp_sockets_count", "RTCD_RTC_UDPSOCKETSCOUNT", &["1", "1600"], &["0", "-1", "x"]),
            ("rtc.nack_buffer_size", "RTCD_RTC_NACKBUFFERSIZE", &["0", "32", "256", "8192"], &["16", "33", "16384", "-1", ""]),
            ("rtc.nack_disable_copy", "RTCD_RTC_NACKDISABLECOPY", &["true", "false"], &["x"]),
            ("store.data_source", "RTCD_STORE_DATASOURCE", &["/x"], &[""]),
            ("logger.enable_console", "RTCD_LOGGER_ENABLECONSOLE", &["true", "false"], &["x"]),
            ("logger.console_json", "RTCD_LOGGER_CONSOLEJSON", &["true", "false"], &["x"]),
            (
                "logger.console_level",
                "RTCD_LOGGER_CONSOLELEVEL",
                &["PANIC", "fatal", "Error", "WARN", "info", "DEBUG", "trace", "stdlog"],
                &["loud"],
            ),
            ("logger.enable_file", "RTCD_LOGGER_ENABLEFILE", &["true", "false"], &["x"]),
            ("logger.file_json", "RTCD_LOGGER_FILEJSON", &["true", "false"], &["x"]),
            ("logger.file_level", "RTCD_LOGGER_FILELEVEL", &["debug"], &["loud"]),
            ("logger.file_location", "RTCD_LOGGER_FILELOCATION", &["/x"], &[""]),
            ("logger.enable_color", "RTCD_LOGGER_ENABLECOLOR", &["true", "false"], &["x"]),
        ];
        assert_eq!(table.len(), 30);
        for (key, env, good, bad) in table {
            for value in *good {
                let loaded = Config::from_sources(None, &|name| (name == *env).then(|| (*value).to_owned()));
                assert!(loaded.is_ok(), "{env}={value}: {}", loaded.err().expect("refused"));
                let file = format!("{key} = {value:?}\n");
                let loaded = Config::from_sources(Some(&file), &|_| None);
                assert!(loaded.as_ref().is_ok_and(|loaded| loaded.unused.is_empty()), "{file}: {:?}", loaded.err());
                // Without regard to case, and the environment wins.
                let file = format!("{} = \"nonsense that no value is: \\u0000\"\n", key.to_uppercase());
                let loaded = Config::from_sources(Some(&file), &|name| (name == *env).then(|| (*value).to_owned()));
                assert!(loaded.is_ok(), "{env}={value} over the file");
            }
            for value in *bad {
                let error = Config::from_sources(None, &|name| (name == *env).then(|| (*value).to_owned())).err();
                let error = error.unwrap_or_else(|| panic!("{env}={value:?} is taken")).to_string();
                let prefix = key.rsplit_once('.').map_or(*key, |(prefix, _)| prefix);
                assert!(error.contains(prefix) && error.contains("RTCD_"), "{error}");
            }
        }
    }

    #[test]
    fn what_has_to_fit_together_is_checked() {
        let of = |pairs: &[(&str, &str)]| {
            let of = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Config::from_sources(None, &of).map_err(|error| error.to_string())
        };
        let secret = ("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", "x");
        for minutes in ["0", "-1", "10080"] {
            assert!(of(&[secret, ("RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES", minutes)]).is_err(), "{minutes}");
        }
        assert!(of(&[secret, ("RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES", "10079")]).is_ok());
        assert!(of(&[("RTCD_LOGGER_ENABLECONSOLE", "false"), ("RTCD_LOGGER_ENABLEFILE", "false")]).is_err(), "no log at all");
        let tls = ("RTCD_API_HTTP_TLS_ENABLE", "true");
        assert!(of(&[tls]).is_err() && of(&[tls, ("RTCD_API_HTTP_TLS_CERTFILE", "/x")]).is_err());
        assert!(of(&[tls, ("RTCD_API_HTTP_TLS_CERTFILE", "/x"), ("RTCD_API_HTTP_TLS_CERTKEY", "/y")]).is_ok(), "read at start");
        let admin = ("RTCD_API_SECURITY_ENABLEADMIN", "true");
        assert!(of(&[admin]).is_err() && of(&[admin, ("RTCD_API_SECURITY_ADMINSECRETKEY", "x")]).is_ok());
    }

    /// In a file they may be URLs, each by itself, or tables; in the environment a list of URLs is one entry.
    #[test]
    fn ice_servers_have_their_forms() {
        let urls = |loaded: Loaded| loaded.config.ice_servers.into_iter().map(|server| server.urls.join(" ")).collect::<Vec<_>>();
        let file = |text: &str| Config::from_sources(Some(text), &|_| None).map(urls).map_err(|error| error.to_string());
        assert_eq!(file("[rtc]\nice_servers = [\"stun:a\", \"turn:b\"]\n"), Ok(vec!["stun:a".to_owned(), "turn:b".to_owned()]));
        let tables = "[rtc]\nice_servers = [{ urls = [\"turn:a\", \"turns:b\"], username = \"u\", credential = \"c\" }]\n";
        assert_eq!(file(tables), Ok(vec!["turn:a turns:b".to_owned()]));
        assert_eq!(file("[[rtc.ice_servers]]\nURLs = [\"stun:a\"]\n"), Ok(vec!["stun:a".to_owned()]));
        assert!(file("[rtc]\nice_servers = [3]\n").is_err());
        let env = |text: &str| Config::from_sources(None, &|name| (name == "RTCD_RTC_ICESERVERS").then(|| text.to_owned())).map(urls);
        assert_eq!(env(r#"["stun:a","stun:b"]"#).ok(), Some(vec!["stun:a stun:b".to_owned()]));
    }

    #[test]
    fn secrets_are_never_described() {
        let shown = Config::describe(None, &|name| (name == "RTCD_SIGNAL_TOKEN").then(|| "0123456789abcdef".to_owned()));
        assert!(shown.contains(&("signal.token", "set".to_owned())));
        assert!(shown.contains(&("tap.secret", "unset".to_owned())));
        assert!(shown.iter().all(|(_, text)| !text.contains("0123456789abcdef")));
    }

    #[test]
    fn livekits_keys_are_all_that_a_node_for_its_clients_needs() {
        let env = |name: &str| (name == "LIVEKIT_KEYS").then(|| "APIone: secret-of-the-first-key".to_owned());
        let alone = Config::from_sources(None, &env).expect("valid").config;
        assert!(alone.signal_token.is_none() && !alone.serves_mattermost() && !alone.log_file);
    }

    #[test]
    fn api_keys_come_under_livekits_name_too_and_ours_wins() {
        let keys = |env: &[(&str, &str)]| {
            let loaded = with(None, env).expect("valid");
            loaded.config.livekit_keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let theirs = ("LIVEKIT_KEYS", "APIone: secret-of-the-first-key\nAPItwo: secret-of-the-second-key\n");
        assert_eq!(keys(&[theirs]), ["APIone", "APItwo"]);
        assert_eq!(keys(&[theirs, ("RTCD_LIVEKIT_KEYS", "APIthree: secret-of-the-third-key")]), ["APIthree"]);
        for bad in
            ["APIone", "APIone: short", ": secret-of-the-first-key", "APIone: secret-of-the-first-key, APIone: secret-of-the-second-key"]
        {
            let error = with(None, &[("LIVEKIT_KEYS", bad)]).err().expect("refused").to_string();
            assert!(error.contains("livekit.keys") && !error.contains("secret-of"), "{error}");
        }
    }

    #[test]
    fn webhooks_need_urls_that_can_be_reached_and_a_key_that_signs() {
        let keys = ("LIVEKIT_KEYS", "APIone: secret-of-the-first-key");
        let of = |env: &[(&str, &str)]| with(None, env).map(|loaded| loaded.config.webhook_urls.len()).map_err(|error| error.to_string());
        let (urls, key) = (("RTCD_WEBHOOK_URLS", "http://a/x, https://b:1/y?z=1"), ("RTCD_WEBHOOK_APIKEY", "APIone"));
        assert_eq!(of(&[keys, urls, key]), Ok(2));
        assert_eq!(
            with(Some("webhook.urls = [\"http://a\", \"http://b\"]\nwebhook.api_key = \"APIone\"\n"), &[keys])
                .map(|l| l.config.webhook_urls.len())
                .ok(),
            Some(2)
        );
        assert_eq!(of(&[keys]), Ok(0));
        for (bad, says) in [("a/x", "RTCD_WEBHOOK_URLS"), ("ftp://a", "http"), ("http://", "RTCD_WEBHOOK_URLS")] {
            assert!(of(&[keys, key, ("RTCD_WEBHOOK_URLS", bad)]).is_err_and(|error| error.contains(says)), "{bad}");
        }
        let many = vec!["http://a"; 17].join(",");
        assert!(of(&[keys, key, ("RTCD_WEBHOOK_URLS", &many)]).is_err_and(|error| error.contains("16")));
        assert!(of(&[keys, urls]).is_err_and(|error| error.contains("webhook.api_key")));
        assert!(of(&[keys, urls, ("RTCD_WEBHOOK_APIKEY", "APItwo")]).is_err_and(|error| error.contains("livekit.keys")));
        assert!(of(&[urls, key]).is_err_and(|error| error.contains("livekit.keys")));
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
