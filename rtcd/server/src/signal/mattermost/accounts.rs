//! Who may speak to us: the admin, and the registered clients by their key or a token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine as _;

use super::limiter::Limiter;
use super::store::{KEY_LEN_MAX, Store};
use super::tokens::{BadToken, Tokens};
use crate::config::{Config, Secret};

/// Shortest key of a client, bytes.
const AUTH_KEY_LEN_MIN: usize = 32;
/// Longest: what bcrypt looks at.
const AUTH_KEY_LEN_MAX: usize = 72;
const BCRYPT_COST: u32 = 10;
const NOT_FOUND: &str = "authentication failed: error: not found";

/// Somebody who has authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Has the admin's key.
    Admin,
    /// A registered client.
    Client(String),
}

impl Identity {
    /// The client's ID, the admin's being empty as in Mattermost's rtcd.
    #[must_use]
    pub fn client_id(&self) -> &str {
        match self {
            Self::Admin => "",
            Self::Client(client) => client,
        }
    }
}

/// Why somebody may not, in the words of Mattermost's rtcd where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// See the module.
pub struct Accounts {
    store: Mutex<Store>,
    tokens: Mutex<Tokens>,
    limiter: Limiter,
    admin: Option<Secret>,
    /// Whether anybody may register.
    pub self_registration: bool,
    /// Keys that were right before, as codes under a key of this process: a fleet that comes back after a cut waits for no hash.
    proved: Mutex<HashMap<String, hmac::Tag>>,
    proving: hmac::Key,
}

impl Accounts {
    /// Over an open store.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn new(config: &Config, store: Store) -> anyhow::Result<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            store: Mutex::new(store),
            tokens: Mutex::new(Tokens::new(config.session_cache_expiration)),
            limiter: Limiter::new(u32::try_from(cores).unwrap_or(1)),
            admin: config.admin_secret_key.clone().filter(|_| config.enable_admin),
            self_registration: config.allow_self_registration,
            proved: Mutex::default(),
            proving: hmac::Key::new(hmac::HMAC_SHA256, &random),
        })
    }

    /// Whether clients can be removed at all.
    #[must_use]
    pub fn can_unregister(&self) -> bool {
        self.admin.is_some() || self.self_registration
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// Nobody we know.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
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
        if self.admin.as_ref().is_some_and(|admin| admin.matches(key.as_bytes())) {
            return Ok(Identity::Admin);
        }
        if client.is_empty() {
            return Err(Refusal::new("authentication failed: unauthorized"));
        }
        match self.check(&client, key).await {
            Ok(()) => Ok(Identity::Client(client)),
            // Whether the name or the key was wrong is told to nobody; `/login` tells, and is what Mattermost's tests compare.
            Err(refusal) if refusal.0 == NOT_FOUND => Err(Refusal::new("authentication failed")),
            Err(refusal) => Err(refusal),
        }
    }

    /// A bearer token for a client with its key.
    ///
    /// # Errors
    /// Not its key.
    pub async fn login(&self, client: &str, key: &str) -> Result<String, Refusal> {
        let failed = |refusal: Refusal| Refusal(format!("login failed: {}", refusal.0));
        self.check(client, key.to_owned()).await.map_err(failed)?;
        lock(&self.tokens).give(client, Instant::now()).ok_or_else(|| failed(Refusal::new("no randomness")))
    }

    /// Keeps a new client and its key.
    ///
    /// # Errors
    /// Too short a key, a name that is taken …
    pub async fn register(&self, client: &str, key: &str) -> Result<(), Refusal> {
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
        if client.len() > KEY_LEN_MAX {
            return Err(failed("failed to set key: error: key too large"));
        }
        let room = |store: &Store| match store.get(client) {
            Some(_) => Err(failed("already registered")),
            None if store.is_full() => Err(failed("no more clients can be registered here")),
            None => Ok(()),
        };
        room(&lock(&self.store))?;
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
        let mut store = lock(&self.store);
        // Somebody else may have been faster.
        room(&store)?;
        store.put(client, &hash).map_err(|error| failed(&format!("failed to set key: {error}")))
    }

    /// Forgets a client; its key and token open nothing any more.
    ///
    /// # Errors
    /// Nobody has that name, or the disk fails.
    pub fn unregister(&self, client: &str) -> Result<(), Refusal> {
        let mut store = lock(&self.store);
        if store.get(client).is_none() {
            return Err(Refusal::new("unregister failed: error: not found"));
        }
        store.delete(client).map_err(|error| Refusal(format!("unregister failed: {error}")))?;
        drop(store);
        lock(&self.proved).remove(client);
        lock(&self.tokens).revoke(client);
        Ok(())
    }

    async fn check(&self, client: &str, key: String) -> Result<(), Refusal> {
        if client.is_empty() {
            return Err(Refusal::new("authentication failed: error: empty key"));
        }
        let hash = lock(&self.store).get(client).map(str::to_owned);
        let hash = hash.ok_or_else(|| Refusal::new(NOT_FOUND))?;
        let code = hmac::sign(&self.proving, &[client.as_bytes(), b"\0", hash.as_bytes(), b"\0", key.as_bytes()].concat());
        let proved = lock(&self.proved).get(client).copied();
        if proved.is_some_and(|proved| aws_lc_rs::constant_time::verify_slices_are_equal(proved.as_ref(), code.as_ref()).is_ok()) {
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

/// Hashing takes 50 ms: not where connections are served.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn accounts(settings: &[(&str, &str)]) -> (Accounts, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let config =
            Config::from_sources(None, &|name| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        let (store, _) = Store::open(folder.path()).expect("opens");
        (Accounts::new(&config.expect("valid").config, store).expect("random"), folder)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("ascii"))])
    }

    fn basic_of(user: &str, password: &str) -> HeaderMap {
        with(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
    }

    #[tokio::test]
    async fn a_registered_key_opens_until_it_is_unregistered() {
        let (accounts, folder) = accounts(&[]);
        accounts.register("a", KEY).await.expect("new");
        let hash = lock(&accounts.store).get("a").expect("kept").to_owned();
        assert!(hash.starts_with("$2a$10$") && hash.len() == 60, "{hash}");
        for _ in 0..3 {
            assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Ok(Identity::Client("a".to_owned())));
        }
        assert_eq!(accounts.authenticate(&basic_of("a", "wrong")).await, Err(Refusal::new("authentication failed")));
        let token = accounts.login("a", KEY).await.expect("the key is right");
        assert_eq!(accounts.authenticate(&with(&format!("Bearer {token}"))).await, Ok(Identity::Client("a".to_owned())));
        accounts.unregister("a").expect("there");
        for headers in [basic_of("a", KEY), with(&format!("Bearer {token}"))] {
            assert!(accounts.authenticate(&headers).await.is_err(), "neither by a key that was right before");
        }
        // Somebody else gets the name: the former key opens nothing.
        accounts.register("a", &KEY.replace("key", "new key")).await.expect("free again");
        assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Err(Refusal::new("authentication failed")));
        drop(accounts);
        assert_eq!(Store::open(folder.path()).expect("opens").1.keys, 1);
    }

    /// The plugin's keys from Go's library, with its own hash of them.
    #[tokio::test]
    async fn a_hash_of_the_original_is_understood() {
        let (accounts, _folder) = accounts(&[]);
        let hash = "$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z6";
        lock(&accounts.store).put("a", hash).expect("writable");
        let right = accounts.authenticate(&basic_of("a", "abcdefghijklmnopqrstuvwxyz0123456789")).await;
        assert_eq!(right, Ok(Identity::Client("a".to_owned())));
    }

    #[tokio::test]
    async fn the_admin_is_known_by_the_password_alone_and_only_where_there_is_one() {
        let admin = [("RTCD_API_SECURITY_ENABLEADMIN", "true"), ("RTCD_API_SECURITY_ADMINSECRETKEY", "the admin's")];
        let (accounts_with, _folder) = accounts(&admin);
        assert_eq!(accounts_with.authenticate(&basic_of("anybody", "the admin's")).await, Ok(Identity::Admin));
        assert_eq!(accounts_with.authenticate(&basic_of("", "the admin")).await, Err(Refusal::new("authentication failed: unauthorized")));
        assert!(accounts_with.can_unregister());
        let (without, _folder) = accounts(&admin[1..]);
        assert!(without.authenticate(&basic_of("", "the admin's")).await.is_err(), "the key is set, the admin is not enabled");
        assert!(!without.can_unregister() && !without.self_registration, "what nobody has set is closed");
    }

    /// A fleet comes back at once: who was known before waits for nothing, though strangers take every turn.
    #[tokio::test]
    async fn known_clients_are_not_in_the_queue_of_strangers() {
        let (accounts, _folder) = accounts(&[]);
        accounts.register("a", KEY).await.expect("new");
        assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        // Every turn of the next ten seconds is taken.
        let taken = std::iter::from_fn(|| accounts.limiter.take_for_tests()).count();
        assert!(taken > 100, "{taken}");
        let late = accounts.authenticate(&basic_of("a", "wrong")).await.expect_err("no turn").0;
        assert_eq!(late, "authentication failed: too many requests at once; try again later");
        for _ in 0..100 {
            assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        }
    }
}
