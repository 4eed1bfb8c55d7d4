//! Who may speak to us: the admin, and the registered clients by their key or a token. Keys lie in the database as hashes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine as _;

use super::config::CallsConfig;
use super::limiter::Limiter;
use super::tokens::{BadToken, Tokens};
use crate::app::lock;
use crate::limits::CALLS_CLIENTS_MAX;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::calls::Registered;

/// Shortest key of a client, bytes.
const AUTH_KEY_LEN_MIN: usize = 32;
/// Longest: what bcrypt looks at.
const AUTH_KEY_LEN_MAX: usize = 72;
/// Longest name of a client, bytes: as the original's store has it.
const CLIENT_LEN_MAX: usize = 64;
const BCRYPT_COST: u32 = 10;
const NOT_FOUND: &str = "authentication failed: error: not found";
const TAKEN: &str = "registration failed: already registered";

/// Somebody who has authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Has the admin's key.
    Admin,
    /// A registered client.
    Client(String),
}

impl Identity {
    /// The client's name, the admin's being empty.
    pub(crate) fn client(&self) -> &str {
        match self {
            Self::Admin => "",
            Self::Client(client) => client,
        }
    }
}

/// Why somebody may not, in the original's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store of clients failed");
        Self::new("the store does not answer; try again")
    }
}

/// See the module.
pub(crate) struct Accounts {
    store: Store,
    tokens: Mutex<Tokens>,
    limiter: Limiter,
    admin: Option<String>,
    /// Whether anybody may register.
    pub(super) self_registration: bool,
    /// Keys that were right before, as codes under a key of this process: who asks often waits for no hash.
    proved: Mutex<HashMap<String, hmac::Tag>>,
    proving: hmac::Key,
}

impl Accounts {
    /// Over the open store.
    pub(crate) fn new(config: &CallsConfig, store: Store) -> anyhow::Result<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            store,
            tokens: Mutex::new(Tokens::new(config.session_life)),
            limiter: Limiter::new(u32::try_from(cores).unwrap_or(1)),
            admin: config.admin_secret.clone(),
            self_registration: config.self_registration,
            proved: Mutex::default(),
            proving: hmac::Key::new(hmac::HMAC_SHA256, &random),
        })
    }

    /// Whether clients can be removed at all.
    pub(super) fn can_unregister(&self) -> bool {
        self.admin.is_some() || self.self_registration
    }

    /// Who sends a request. Where anybody may register, a name that nobody has is registered with the key that came with it: the
    /// plugin relies on that and never asks `/register`.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        self.identify(headers, self.self_registration).await
    }

    /// Who sends a request, among those who are registered already.
    pub(super) async fn authenticate_known(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        self.identify(headers, false).await
    }

    async fn identify(&self, headers: &HeaderMap, register: bool) -> Result<Identity, Refusal> {
        let invalid = || Refusal::new("authentication failed: invalid auth header");
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(invalid)?;
        if let Some(token) = given.strip_prefix("Bearer ") {
            let found = lock(&self.tokens).client_of(token, Instant::now());
            return found.map(Identity::Client).map_err(|bad| match bad {
                BadToken::Invalid => Refusal::new("authentication failed: token is invalid"),
                BadToken::Expired => Refusal::new("authentication failed: session is expired"),
            });
        }
        let (client, key) = basic(given).ok_or_else(invalid)?;
        if self.admin.as_ref().is_some_and(|admin| same(admin.as_bytes(), key.as_bytes())) {
            return Ok(Identity::Admin);
        }
        if client.is_empty() {
            return Err(Refusal::new("authentication failed: unauthorized"));
        }
        if register {
            match self.register(&client, &key).await {
                Ok(()) => {
                    tracing::info!(client, "a Mattermost installation registered itself");
                    return Ok(Identity::Client(client));
                }
                Err(refusal) if refusal.0 == TAKEN => {}
                Err(refusal) => return Err(Refusal(format!("authentication failed: {}", refusal.0))),
            }
        }
        match self.check(&client, key).await {
            Ok(()) => Ok(Identity::Client(client)),
            // Whether the name or the key was wrong is told to nobody but by `/login`, as there.
            Err(refusal) if refusal.0 == NOT_FOUND => Err(Refusal::new("authentication failed")),
            Err(refusal) => Err(refusal),
        }
    }

    /// A bearer token for a client with its key.
    pub(super) async fn login(&self, client: &str, key: &str) -> Result<String, Refusal> {
        let failed = |refusal: Refusal| Refusal(format!("login failed: {}", refusal.0));
        self.check(client, key.to_owned()).await.map_err(failed)?;
        lock(&self.tokens).give(client, Instant::now()).ok_or_else(|| failed(Refusal::new("no randomness")))
    }

    /// Keeps a new client and the hash of its key.
    pub(super) async fn register(&self, client: &str, key: &str) -> Result<(), Refusal> {
        let failed = |why: &str| Refusal(format!("registration failed: {why}"));
        if key.len() < AUTH_KEY_LEN_MIN {
            return Err(failed("key not long enough"));
        }
        if client.is_empty() {
            return Err(failed("error: empty key"));
        }
        if key.len() > AUTH_KEY_LEN_MAX {
            return Err(failed("bcrypt: password length exceeds 72 bytes"));
        }
        if client.len() > CLIENT_LEN_MAX {
            return Err(failed("failed to set key: error: key too large"));
        }
        // Before the hash, which costs: nearly everybody who comes is known.
        if self.store.calls_client_hash(client).await?.is_some() {
            return Err(Refusal::new(TAKEN));
        }
        if !self.limiter.turn().await {
            return Err(failed("too many requests at once; try again later"));
        }
        let given = key.to_owned();
        let hash = blocking(move || {
            let parts = bcrypt::hash_with_result(given, BCRYPT_COST).ok()?;
            // The version that Go's library writes.
            Some(parts.format_for_version(bcrypt::Version::TwoA))
        });
        let hash = hash.await.flatten().ok_or_else(|| failed("the key cannot be hashed"))?;
        match self.store.add_calls_client(client, &hash, CALLS_CLIENTS_MAX).await? {
            Registered::New => Ok(()),
            // Somebody else was faster.
            Registered::Taken => Err(Refusal::new(TAKEN)),
            Registered::Full => Err(failed("no more clients can be registered here")),
        }
    }

    /// Forgets a client; its key and token open nothing any more.
    pub(super) async fn unregister(&self, client: &str) -> Result<(), Refusal> {
        if !self.store.remove_calls_client(client).await? {
            return Err(Refusal::new("unregister failed: error: not found"));
        }
        lock(&self.proved).remove(client);
        lock(&self.tokens).revoke(client);
        Ok(())
    }

    async fn check(&self, client: &str, key: String) -> Result<(), Refusal> {
        if client.is_empty() {
            return Err(Refusal::new("authentication failed: error: empty key"));
        }
        let hash = self.store.calls_client_hash(client).await?.ok_or_else(|| Refusal::new(NOT_FOUND))?;
        let code = hmac::sign(&self.proving, &[client.as_bytes(), b"\0", hash.as_bytes(), b"\0", key.as_bytes()].concat());
        let proved = lock(&self.proved).get(client).copied();
        if proved.is_some_and(|proved| same(proved.as_ref(), code.as_ref())) {
            return Ok(());
        }
        if key.len() > AUTH_KEY_LEN_MAX {
            return Err(Refusal::new("authentication failed"));
        }
        if !self.limiter.turn().await {
            return Err(Refusal::new("authentication failed: too many requests at once; try again later"));
        }
        let right = blocking(move || bcrypt::verify(key, &hash).unwrap_or(false)).await;
        if right != Some(true) {
            return Err(Refusal::new("authentication failed"));
        }
        lock(&self.proved).insert(client.to_owned(), code);
        Ok(())
    }
}

/// In a time that does not tell how much of it is right.
fn same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// Hashing takes 50 ms: not where connections are served.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// User and password of a Basic header.
fn basic(given: &str) -> Option<(String, String)> {
    let (scheme, coded) = given.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case("Basic ") {
        return None;
    }
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(coded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a key that is long enough, 32 bytes at least";

    async fn accounts(env: &[(&str, &str)]) -> (Accounts, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let config = CallsConfig::read(None, &find).unwrap();
        let store = Store::open(&format!("sqlite://{}?mode=rwc", folder.path().join("jobs.db").display())).await.unwrap();
        (Accounts::new(&config, store).unwrap(), folder)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn basic_of(user: &str, password: &str) -> HeaderMap {
        with(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
    }

    #[tokio::test]
    async fn a_key_opens_until_its_client_is_removed_and_only_a_hash_is_kept() {
        let (accounts, _folder) = accounts(&[("API_SECURITY_ALLOWSELFREGISTRATION", "true")]).await;
        assert!(accounts.authenticate_known(&basic_of("a", KEY)).await.is_err());
        assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Ok(Identity::Client("a".to_owned())), "it registers itself");
        let hash = accounts.store.calls_client_hash("a").await.unwrap().unwrap();
        assert!(hash.starts_with("$2a$10$") && hash.len() == 60, "{hash}");
        assert_eq!(accounts.authenticate(&basic_of("a", &KEY.to_uppercase())).await, Err(Refusal::new("authentication failed")));
        let token = accounts.login("a", KEY).await.unwrap();
        assert_eq!(accounts.authenticate(&with(&format!("Bearer {token}"))).await, Ok(Identity::Client("a".to_owned())));
        accounts.unregister("a").await.unwrap();
        for headers in [basic_of("a", KEY), with(&format!("Bearer {token}"))] {
            assert!(accounts.authenticate_known(&headers).await.is_err(), "neither by a key that was right before");
        }
        // Somebody else gets the name: the former key opens nothing.
        accounts.register("a", &KEY.replace("key", "new key")).await.unwrap();
        assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Err(Refusal::new("authentication failed")));
    }

    /// What Go's library made of a key, as the original keeps it.
    #[tokio::test]
    async fn a_hash_of_the_original_is_understood() {
        let (accounts, _folder) = accounts(&[]).await;
        let hash = "$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z6";
        assert_eq!(accounts.store.add_calls_client("a", hash, 1).await.unwrap(), Registered::New);
        let right = accounts.authenticate(&basic_of("a", "abcdefghijklmnopqrstuvwxyz0123456789")).await;
        assert_eq!(right, Ok(Identity::Client("a".to_owned())));
        assert_eq!(accounts.store.add_calls_client("b", hash, 1).await.unwrap(), Registered::Full, "one is all that there may be");
    }

    #[tokio::test]
    async fn strangers_take_turns_and_who_is_known_waits_for_none() {
        let (accounts, _folder) = accounts(&[("API_SECURITY_ALLOWSELFREGISTRATION", "true")]).await;
        for _ in 0..2 {
            assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        }
        let taken = std::iter::from_fn(|| accounts.limiter.take_for_tests()).count();
        assert!(taken > 100, "{taken}");
        let late = accounts.authenticate(&basic_of("a", &KEY.to_uppercase())).await.unwrap_err().0;
        assert_eq!(late, "authentication failed: too many requests at once; try again later");
        let late = accounts.authenticate(&basic_of("b", KEY)).await.unwrap_err().0;
        assert_eq!(late, "authentication failed: registration failed: too many requests at once; try again later");
        for _ in 0..20 {
            assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        }
    }
}
