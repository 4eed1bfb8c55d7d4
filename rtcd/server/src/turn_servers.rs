//! The site's TURN servers, for clients whose network lets them reach this node neither by UDP nor by TCP: given to them when
//! they join, with credentials that end by themselves. The node itself never relays through one.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as lk;

use crate::config::{Config, IceServer, Secret};

/// See the module. Empty where the site has none.
#[derive(Clone, Debug, Default)]
pub struct TurnServers {
    servers: Vec<IceServer>,
    secret: Option<Secret>,
    life: Duration,
}

impl TurnServers {
    /// The TURN entries of `rtc.ice_servers` that clients can use: with a user and a password, or with a secret from which each
    /// client gets its own.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let servers = turn_servers(config).filter(|server| is_usable(server, config)).cloned().collect();
        let minutes = u64::try_from(config.turn_minutes).unwrap_or_default();
        Self { servers, secret: config.turn_secret.clone(), life: Duration::from_secs(minutes * 60) }
    }

    /// What an operator should know of entries that cannot be used.
    #[must_use]
    pub fn warnings(config: &Config) -> Vec<String> {
        let text = |server: &IceServer| {
            format!(
                "rtc.ice_servers: clients are not told of {}, which has no credential: set rtc.turn.static_auth_secret \
                 (RTCD_RTC_TURNCONFIG_STATICAUTHSECRET) to the server's static-auth-secret, or give the entry a username and a credential",
                server.urls.join(", ")
            )
        };
        turn_servers(config).filter(|server| !is_usable(server, config)).map(text).collect()
    }

    /// For one client, now. `name` tells it from others in the server's log; it should say nothing of the person.
    ///
    /// Made credentials are those of coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user is
    /// `expiry:name` in Unix seconds, the password the Base64 of its HMAC-SHA1 with the secret.
    #[must_use]
    pub fn for_client(&self, unix_ms: i64, name: &str) -> Vec<lk::IceServer> {
        let expiry = unix_ms / 1000 + i64::try_from(self.life.as_secs()).unwrap_or(i64::MAX / 2);
        let made = self.secret.as_ref().map(|secret| {
            let username = format!("{expiry}:{name}");
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.bytes());
            let credential = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
            (username, credential)
        });
        let one = |server: &IceServer| {
            let own =
                server.credential.as_ref().map(|secret| (server.username.clone(), String::from_utf8_lossy(secret.bytes()).into_owned()));
            let (username, credential) = own.or_else(|| made.clone())?;
            Some(lk::IceServer { urls: server.urls.clone(), username, credential })
        };
        self.servers.iter().filter_map(one).collect()
    }
}

fn turn_servers(config: &Config) -> impl Iterator<Item = &IceServer> {
    config.ice_servers.iter().filter(|server| server.urls.first().is_some_and(|url| url.starts_with("turn")))
}

/// Whether there is something that a client can be let in with.
fn is_usable(server: &IceServer, config: &Config) -> bool {
    server.credential.is_some() || config.turn_secret.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &str, secret: &str) -> Config {
        let all = [
            ("RTCD_LIVEKIT_KEYS", "key: 0123456789abcdef0123456789abcdef"),
            ("RTCD_RTC_ICESERVERS", servers),
            ("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", secret),
            ("RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES", "10"),
        ];
        let get = |name: &str| all.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::from_sources(None, &get).expect("a valid configuration").config
    }

    /// Beside OpenSSL: `printf '1700000600:PA_1' | openssl dgst -sha1 -hmac secret -binary | base64`.
    #[test]
    fn credentials_are_coturns_and_end() {
        let config = config(r#"[{"urls":["turn:a:3478","turns:a"]},{"urls":["stun:b"]}]"#, "secret");
        let given = TurnServers::of(&config).for_client(1_700_000_000_999, "PA_1");
        let expected = lk::IceServer {
            urls: vec!["turn:a:3478".to_owned(), "turns:a".to_owned()],
            username: "1700000600:PA_1".to_owned(),
            credential: "31HPgVNxzTT7J7ave7xUxkTFtr4=".to_owned(),
        };
        assert_eq!(given, [expected]);
        assert!(TurnServers::warnings(&config).is_empty());
    }

    #[test]
    fn an_entry_with_its_own_user_keeps_it_and_one_without_anything_is_told_of() {
        let config = config(r#"[{"urls":["turn:a"],"username":"u","credential":"c"},{"urls":["turn:b"]}]"#, "");
        let given = TurnServers::of(&config).for_client(0, "PA_1");
        assert_eq!(given, [lk::IceServer { urls: vec!["turn:a".to_owned()], username: "u".to_owned(), credential: "c".to_owned() }]);
        let warnings = TurnServers::warnings(&config);
        assert!(warnings.len() == 1 && warnings[0].contains("turn:b") && warnings[0].contains("static_auth_secret"), "{warnings:?}");
    }
}
