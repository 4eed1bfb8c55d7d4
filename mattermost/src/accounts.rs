//! Who may speak to us: the admin, and the registered clients by their key or a token. Only hashes of keys are kept.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine as _;

use crate::clients::{Added, Clients};
use crate::key_folder::KEY_LEN_MAX;
use crate::limiter::Limiter;
use crate::tokens::{BadToken, Tokens};

/// Shortest key of a client, bytes.
const AUTH_KEY_LEN_MIN: usize = 32;
/// Longest: what bcrypt looks at.
const AUTH_KEY_LEN_MAX: usize = 72;
const BCRYPT_COST: u32 = 10;
const NOT_FOUND: &str = "authentication failed: error: not found";
const INVALID_TOKEN: &str = "authentication failed: token is invalid";
const TAKEN: &str = "registration failed: already registered";

/// Somebody who has authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Has the admin's key.
    Admin,
    /// A registered client.
    Client(String),
}

impl Identity {
    /// The client's name, the admin's being empty as in the originals.
    #[must_use]
    pub fn client(&self) -> &str {
        match self {
            Self::Admin => "",
            Self::Client(client) => client,
        }
    }
}

/// Why somebody may not, in the originals' words where they have some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// With that text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// What an operator decides.
#[derive(Clone)]
pub struct AccountSettings {
    /// The admin's key, where there is an admin.
    pub admin_key: Option<Vec<u8>>,
    /// Whether anybody may register.
    pub self_registration: bool,
    /// Where anybody may: whether a request with a name that nobody has registers it with the key that came with it. The plugin relies
    /// on that in calls-offloader, where it never asks `/register`; rtcd has no such thing.
    pub unknown_register_themselves: bool,
    /// How long a token opens.
    pub token_life: Duration,
}

/// See the module.
pub struct Accounts<C> {
    clients: C,
    settings: AccountSettings,
    tokens: Mutex<Tokens>,
    limiter: Limiter,
    /// Keys that were right before, as codes under a key of this process: a fleet that comes back after a cut waits for no hash.
    proved: Mutex<HashMap<String, hmac::Tag>>,
    proving: hmac::Key,
}

impl<C: Clients> Accounts<C> {
    /// Over those that are registered already.
    ///
    /// # Errors
    /// The operating system gives no randomness.
    pub fn new(settings: AccountSettings, clients: C) -> anyhow::Result<Self> {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            clients,
            tokens: Mutex::new(Tokens::new(settings.token_life)),
            limiter: Limiter::new(u32::try_from(cores).unwrap_or(1)),
            proved: Mutex::default(),
            proving: hmac::Key::new(hmac::HMAC_SHA256, &random),
            settings,
        })
    }

    /// Whether anybody may register.
    pub fn self_registration(&self) -> bool {
        self.settings.self_registration
    }

    /// Whether clients can be removed at all.
    pub fn can_unregister(&self) -> bool {
        self.settings.admin_key.is_some() || self.settings.self_registration
    }

    /// Who sends a request.
    ///
    /// # Errors
    /// Nobody we know, or nobody who can be registered.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        self.identify(headers, self.settings.self_registration && self.settings.unknown_register_themselves).await
    }

    /// Who sends a request, among those who are registered already.
    ///
    /// # Errors
    /// Nobody we know.
    pub async fn authenticate_known(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        self.identify(headers, false).await
    }

    async fn identify(&self, headers: &HeaderMap, register: bool) -> Result<Identity, Refusal> {
        let invalid = || Refusal::new("authentication failed: invalid auth header");
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(invalid)?;
        if let Some(token) = given.strip_prefix("Bearer ") {
            let found = lock(&self.tokens).client_of(token, Instant::now());
            let (client, hash) = found.map_err(|bad| match bad {
                BadToken::Invalid => Refusal::new(INVALID_TOKEN),
                BadToken::Expired => Refusal::new("authentication failed: session is expired"),
            })?;
            // Unregistered while it logged in, or on another node that shares the clients: nobody found this token to revoke it.
            let now = self.clients.hash(&client).await.map_err(|error| Refusal(format!("authentication failed: {error}")))?;
            return if now == Some(hash) { Ok(Identity::Client(client)) } else { Err(Refusal::new(INVALID_TOKEN)) };
        }
        let (client, key) = basic(given).ok_or_else(invalid)?;
        if self.settings.admin_key.as_ref().is_some_and(|admin| same(admin, key.as_bytes())) {
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
            Ok(_hash) => Ok(Identity::Client(client)),
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
        let hash = self.check(client, key.to_owned()).await.map_err(failed)?;
        lock(&self.tokens).give(client, &hash, Instant::now()).ok_or_else(|| failed(Refusal::new("no randomness")))
    }

    /// Keeps a new client and the hash of its key.
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
        // Before the hash, which costs: nearly everybody who comes is known.
        if self.clients.hash(client).await.map_err(|error| failed(&error))?.is_some() {
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
        match self.clients.add(client, &hash).await.map_err(|error| failed(&error))? {
            Added::New => Ok(()),
            // Somebody else was faster.
            Added::Taken => Err(Refusal::new(TAKEN)),
            Added::Full => Err(failed("no more clients can be registered here")),
        }
    }

    /// Forgets a client; its key and token open nothing any more.
    ///
    /// # Errors
    /// Nobody has that name, or the disk fails.
    pub async fn unregister(&self, client: &str) -> Result<(), Refusal> {
        if !self.clients.remove(client).await.map_err(|error| Refusal(format!("unregister failed: {error}")))? {
            return Err(Refusal::new("unregister failed: error: not found"));
        }
        lock(&self.proved).remove(client);
        lock(&self.tokens).revoke(client);
        Ok(())
    }

    /// The hash that the key fits.
    async fn check(&self, client: &str, key: String) -> Result<String, Refusal> {
        if client.is_empty() {
            return Err(Refusal::new("authentication failed: error: empty key"));
        }
        let hash = self.clients.hash(client).await.map_err(|error| Refusal(format!("authentication failed: {error}")))?;
        let hash = hash.ok_or_else(|| Refusal::new(NOT_FOUND))?;
        let code = hmac::sign(&self.proving, &[client.as_bytes(), b"\0", hash.as_bytes(), b"\0", key.as_bytes()].concat());
        let proved = lock(&self.proved).get(client).copied();
        if proved.is_some_and(|proved| same(proved.as_ref(), code.as_ref())) {
            return Ok(hash);
        }
        if key.len() > AUTH_KEY_LEN_MAX {
            return Err(Refusal::new("authentication failed"));
        }
        if !self.limiter.turn().await {
            return Err(Refusal::new("authentication failed: too many requests at once; try again later"));
        }
        let right = blocking(move || bcrypt::verify(key, &hash).unwrap_or(false).then_some(hash)).await;
        let hash = right.flatten().ok_or_else(|| Refusal::new("authentication failed"))?;
        lock(&self.proved).insert(client.to_owned(), code);
        Ok(hash)
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
    use crate::key_folder::KeyFolder;

    const KEY: &str = "a key that is long enough, 32 bytes at least";

    fn closed() -> AccountSettings {
        let token_life = Duration::from_secs(60);
        AccountSettings { admin_key: None, self_registration: false, unknown_register_themselves: false, token_life }
    }

    fn accounts(settings: AccountSettings) -> (Accounts<Mutex<KeyFolder>>, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        let (keys, _) = KeyFolder::open(folder.path()).expect("opens");
        (Accounts::new(settings, Mutex::new(keys)).expect("random"), folder)
    }

    fn with(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("ascii"))])
    }

    fn basic_of(user: &str, password: &str) -> HeaderMap {
        with(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
    }

    #[tokio::test]
    async fn a_registered_key_opens_until_it_is_unregistered_and_only_a_hash_is_kept() {
        let (accounts, folder) = accounts(closed());
        accounts.register("a", KEY).await.expect("new");
        let hash = accounts.clients.hash("a").await.expect("reads").expect("kept");
        assert!(hash.starts_with("$2a$10$") && hash.len() == 60, "{hash}");
        for _ in 0..3 {
            assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Ok(Identity::Client("a".to_owned())));
        }
        assert_eq!(accounts.authenticate(&basic_of("a", "wrong")).await, Err(Refusal::new("authentication failed")));
        let token = accounts.login("a", KEY).await.expect("the key is right");
        assert_eq!(accounts.authenticate(&with(&format!("Bearer {token}"))).await, Ok(Identity::Client("a".to_owned())));
        accounts.unregister("a").await.expect("there");
        for headers in [basic_of("a", KEY), with(&format!("Bearer {token}"))] {
            assert!(accounts.authenticate(&headers).await.is_err(), "neither by a key that was right before");
        }
        // Somebody else gets the name: the former key opens nothing.
        accounts.register("a", &KEY.replace("key", "new key")).await.expect("free again");
        assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Err(Refusal::new("authentication failed")));
        drop(accounts);
        assert_eq!(KeyFolder::open(folder.path()).expect("opens").1.keys, 1);
    }

    #[tokio::test]
    async fn a_token_of_who_was_unregistered_meanwhile_opens_nothing() {
        let (accounts, _folder) = accounts(closed());
        accounts.register("a", KEY).await.expect("new");
        // The login has read the hash when the client goes, and gives its token after that.
        let (token, gone) = tokio::join!(accounts.login("a", KEY), accounts.unregister("a"));
        gone.expect("there");
        let bearer = with(&format!("Bearer {}", token.expect("the key was right")));
        let refused = Err(Refusal::new("authentication failed: token is invalid"));
        assert_eq!(accounts.authenticate(&bearer).await, refused);
        accounts.register("a", &KEY.replace("key", "new key")).await.expect("free again");
        assert_eq!(accounts.authenticate(&bearer).await, refused, "nor as whoever has the name now");
    }

    /// Where the plugin never asks to be registered: its first request does it, if the operator lets anybody.
    #[tokio::test]
    async fn who_is_unknown_registers_itself_only_where_both_allow_it() {
        let open = AccountSettings { self_registration: true, unknown_register_themselves: true, ..closed() };
        let (accounts_open, _folder) = accounts(open.clone());
        assert!(accounts_open.authenticate_known(&basic_of("a", KEY)).await.is_err());
        assert_eq!(accounts_open.authenticate(&basic_of("a", KEY)).await, Ok(Identity::Client("a".to_owned())));
        let stolen = accounts_open.authenticate(&basic_of("a", &KEY.to_uppercase())).await;
        assert_eq!(stolen, Err(Refusal::new("authentication failed")), "a name that somebody has");
        for settings in
            [AccountSettings { self_registration: false, ..open.clone() }, AccountSettings { unknown_register_themselves: false, ..open }]
        {
            let (accounts, _folder) = accounts(settings);
            assert_eq!(accounts.authenticate(&basic_of("a", KEY)).await, Err(Refusal::new("authentication failed")));
        }
    }

    /// What Go's library made of a key, as the originals keep it.
    #[tokio::test]
    async fn a_hash_of_the_original_is_understood() {
        let (accounts, _folder) = accounts(closed());
        let hash = "$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z6";
        assert_eq!(accounts.clients.add("a", hash).await, Ok(Added::New));
        let right = accounts.authenticate(&basic_of("a", "abcdefghijklmnopqrstuvwxyz0123456789")).await;
        assert_eq!(right, Ok(Identity::Client("a".to_owned())));
    }

    #[tokio::test]
    async fn the_admin_is_known_by_the_password_alone_and_only_where_there_is_one() {
        let (accounts_with, _folder) = accounts(AccountSettings { admin_key: Some(b"the admin's".to_vec()), ..closed() });
        assert_eq!(accounts_with.authenticate(&basic_of("anybody", "the admin's")).await, Ok(Identity::Admin));
        assert_eq!(accounts_with.authenticate(&basic_of("", "the admin")).await, Err(Refusal::new("authentication failed: unauthorized")));
        assert!(accounts_with.can_unregister());
        let (without, _folder) = accounts(closed());
        assert!(without.authenticate(&basic_of("", "the admin's")).await.is_err());
        assert!(!without.can_unregister() && !without.self_registration(), "what nobody has set is closed");
    }

    /// A fleet comes back at once: who was known before waits for nothing, though strangers take every turn.
    #[tokio::test]
    async fn known_clients_are_not_in_the_queue_of_strangers() {
        let (accounts, _folder) = accounts(AccountSettings { self_registration: true, unknown_register_themselves: true, ..closed() });
        for _ in 0..2 {
            assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        }
        // Every turn of the next ten seconds is taken.
        let taken = std::iter::from_fn(|| accounts.limiter.reserve(Instant::now())).count();
        assert!(taken > 100, "{taken}");
        let late = accounts.authenticate(&basic_of("a", "wrong, but as long as a key has to be")).await.expect_err("no turn").0;
        assert_eq!(late, "authentication failed: too many requests at once; try again later");
        let late = accounts.authenticate(&basic_of("b", KEY)).await.expect_err("no turn").0;
        assert_eq!(late, "authentication failed: registration failed: too many requests at once; try again later");
        for _ in 0..100 {
            assert!(accounts.authenticate(&basic_of("a", KEY)).await.is_ok());
        }
    }
}
