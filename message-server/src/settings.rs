//! Settings: one struct, read once from a TOML file and the environment, checked with messages that name the field.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

/// Everything that can be set. Each field is a key of the TOML file and, upper case with the prefix
/// `MESSAGE_SERVER_`, an environment variable, which wins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Plain HTTP, for this machine (browsers treat localhost as a secure context) or for a proxy in front.
    pub listen: SocketAddr,
    /// HTTPS for everybody else. Empty: none.
    pub tls_listen: String,
    /// Certificate chain, PEM. Empty: a self-signed one is made and kept in the data folder.
    pub tls_cert: PathBuf,
    /// The certificate's key, PEM.
    pub tls_key: PathBuf,
    /// Database, keys and the first administrator's link lie here.
    pub data: PathBuf,
    /// `sqlite://FILE` or `postgres://USER@HOST/NAME`. Empty: SQLite in the data folder.
    pub database: String,
    /// The address people use, for links. Empty: taken from each request.
    pub public_url: String,
    /// The media node's gRPC address.
    pub rtcd: String,
    /// Shared secret of the link to the media node (RTCD_SIGNAL_TOKEN there).
    pub rtcd_token: Secret,
    /// The offloader's address. Empty: no recording, no captions.
    pub offloader: String,
    /// Its bearer token (OFFLOADER_TOKEN there).
    pub offloader_token: Secret,
    /// Name of this server towards the media node. Empty: made once and kept in the data folder.
    pub node_id: String,
    /// Tenant of all calls of this server.
    pub tenant: String,
    /// Addresses of proxies whose `X-Forwarded-For` is believed, for sign-in limits.
    pub trusted_proxies: Vec<IpAddr>,
    /// Seconds an empty call stays open, so that a reload or a restart of the media node does not end it.
    pub empty_call_grace_s: u64,
    /// Version of the recording notice; a new text needs a new version.
    pub notice_version: String,
    /// What participants are asked before anything of theirs is stored.
    pub notice_text: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8065)),
            tls_listen: "0.0.0.0:8066".to_owned(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            data: PathBuf::from("var/message-server"),
            database: String::new(),
            public_url: String::new(),
            rtcd: "http://127.0.0.1:8045".to_owned(),
            rtcd_token: Secret::default(),
            offloader: String::new(),
            offloader_token: Secret::default(),
            node_id: String::new(),
            tenant: "default".to_owned(),
            trusted_proxies: Vec::new(),
            empty_call_grace_s: crate::limits::EMPTY_CALL_GRACE.as_secs(),
            notice_version: "1".to_owned(),
            notice_text: "This call is being recorded. The recording and its transcript are kept by your organisation and \
                          may be reviewed. Do you agree to be recorded?"
                .to_owned(),
        }
    }
}

/// A secret: never printed, wherever the settings go.
#[derive(Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one call that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_set() { "set" } else { "unset" })
    }
}

/// Settings that do not make sense; each text names the field.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Unreadable or of a wrong type; the text names key and source.
    #[error("settings: {0}")]
    Read(#[from] Box<figment::Error>),
    /// A value that cannot work.
    #[error("setting {field} (environment {env}): {problem}", env = env_name(field))]
    Value {
        /// The field's name.
        field: &'static str,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

fn env_name(field: &str) -> String {
    format!("MESSAGE_SERVER_{}", field.to_ascii_uppercase())
}

impl Settings {
    /// Defaults, then the file, then the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        Self::read(file, |variable| std::env::var(variable).ok())
    }

    fn read(file: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        for (key, default) in defaults.as_object().into_iter().flatten() {
            let Some(text) = environment(&env_name(key)) else { continue };
            // Texts stay as they are: a secret of digits is no number, and its leading zeros count.
            figment = if default.is_string() {
                figment.merge((key.as_str(), text))
            } else {
                let value: figment::value::Value = text.parse().unwrap_or_else(|never| match never {});
                figment.merge((key.as_str(), value))
            };
        }
        let settings: Self = figment.extract().map_err(Box::new)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), SettingsError> {
        let bad = |field, problem: &str| Err(SettingsError::Value { field, problem: problem.to_owned() });
        if !self.tls_listen.is_empty() && self.tls_listen.parse::<SocketAddr>().is_err() {
            return bad("tls_listen", "must be ADDRESS:PORT such as 0.0.0.0:8066, or empty for no HTTPS");
        }
        if self.tls_cert.as_os_str().is_empty() != self.tls_key.as_os_str().is_empty() {
            return bad("tls_cert", "give certificate and key together, or neither to have one made");
        }
        for (field, url, may_be_empty) in
            [("rtcd", &self.rtcd, false), ("offloader", &self.offloader, true), ("public_url", &self.public_url, true)]
        {
            let fine = url.starts_with("http://") || url.starts_with("https://");
            if !(fine || may_be_empty && url.is_empty()) {
                return bad(field, "must be an address such as http://127.0.0.1:8045");
            }
        }
        if self.tenant.is_empty() || self.tenant.contains('/') {
            return bad("tenant", "must be a name without a slash");
        }
        if self.notice_text.trim().is_empty() || self.notice_version.trim().is_empty() {
            return bad("notice_text", "participants must be asked something: give a text and a version");
        }
        Ok(())
    }

    /// All settings as they hold, `key=value` in lines; secrets as set or unset.
    pub fn lines(&self) -> Vec<String> {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        for (key, secret) in [("rtcd_token", &self.rtcd_token), ("offloader_token", &self.offloader_token)] {
            shown[key] = format!("{secret:?}").into();
        }
        // Between the scheme and the host stands a password, after the question mark may stand another.
        shown["database"] = without_password(&self.database).into();
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        shown.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect()
    }

    /// The same in one line, for the log.
    pub fn summary(&self) -> String {
        self.lines().join(" ")
    }

    /// The HTTPS address, if there is one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_listen.parse().ok()
    }

    /// The database's address.
    pub fn database_url(&self) -> String {
        if self.database.is_empty() { crate::store::Store::sqlite_url(&self.data) } else { self.database.clone() }
    }
}

/// A database's address without user, password and parameters.
fn without_password(url: &str) -> String {
    let plain = url.split('?').next().unwrap_or_default();
    match (plain.split_once("://"), plain.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_refused_with_the_fields_name() {
        let settings = Settings { tls_listen: "nonsense".to_owned(), ..Settings::default() };
        let text = settings.check().unwrap_err().to_string();
        assert!(text.contains("MESSAGE_SERVER_TLS_LISTEN"), "{text}");
    }

    #[test]
    fn the_environment_wins_over_the_file_and_texts_stay_texts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, "tenant = \"acme\"\nlisten = \"127.0.0.1:1234\"\nempty_call_grace_s = 5\n").unwrap();
        let environment = |variable: &str| match variable {
            "MESSAGE_SERVER_LISTEN" => Some("127.0.0.1:99".to_owned()),
            "MESSAGE_SERVER_RTCD_TOKEN" => Some("00123".to_owned()),
            "MESSAGE_SERVER_EMPTY_CALL_GRACE_S" => Some("7".to_owned()),
            "MESSAGE_SERVER_TRUSTED_PROXIES" => Some("[\"10.0.0.1\"]".to_owned()),
            _ => None,
        };
        let settings = Settings::read(Some(&file), environment).unwrap();
        assert_eq!(settings.tenant, "acme");
        assert_eq!(settings.listen.port(), 99);
        assert_eq!(settings.rtcd_token.expose(), "00123");
        assert_eq!(settings.empty_call_grace_s, 7);
        assert_eq!(settings.trusted_proxies, [IpAddr::from([10, 0, 0, 1])]);
        std::fs::write(&file, "no_such_key = 1\n").unwrap();
        let text = Settings::read(Some(&file), |_| None).unwrap_err().to_string();
        assert!(text.contains("no_such_key"), "{text}");
    }

    #[test]
    fn secrets_are_printed_as_set_or_unset() {
        let settings = Settings { rtcd_token: Secret::new("canary"), ..Settings::default() };
        let text = format!("{settings:?}");
        assert!(text.contains("rtcd_token: set") && text.contains("offloader_token: unset"), "{text}");
        assert!(!text.contains("canary"));
        for database in ["postgres://conclave:can@ry@db:5432/calls?sslmode=disable", "postgres://db:5432/calls?password=can@ry"] {
            let settings = Settings { database: database.to_owned(), ..settings.clone() };
            let text = settings.summary();
            assert!(text.contains("rtcd_token=set") && text.contains("offloader_token=unset"), "{text}");
            assert!(text.contains("database=postgres://db:5432/calls "), "{text}");
            assert!(!text.contains("canary") && !text.contains("can@ry") && !text.contains("ry@"), "{text}");
        }
    }
}
