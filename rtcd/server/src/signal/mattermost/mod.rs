//! The dialect of Mattermost's Calls plugin (v1): its HTTP routes, its WebSocket and its quirks, all of them in this folder.
//!
//! A client is a Mattermost installation. It authenticates with its ID and key, opens a WebSocket from each of its nodes and carries
//! its people's signalling over them. The core knows none of this: the sessions' part (`session`) speaks to it.

mod channel;
pub mod connections;
pub mod corner;
pub mod figures;
pub mod frames;
#[cfg(test)]
mod fuzzing;
pub mod limits;
pub mod load;
pub mod msgpack;
pub mod reception;
pub mod routes;
pub mod session;
pub mod sessions;
mod socket;
pub mod version;

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::Semaphore;

use crate::config::Config;
use connections::Connections;
use limits::SOCKETS_MAX;
use load::Load;
use mattermost_accounts::key_folder::KeyFolder;
use mattermost_accounts::{AccountSettings, Accounts};
use sessions::Sessions;

/// What serves Mattermost's clients.
pub struct Mattermost {
    /// Who may be one.
    pub accounts: Arc<Accounts<Mutex<KeyFolder>>>,
    /// Their connections.
    pub connections: Arc<Connections>,
    /// Their people's sessions.
    pub sessions: Arc<dyn Sessions>,
    load: Arc<Load>,
    sockets: Arc<Semaphore>,
}

impl Mattermost {
    /// Opens the store of keys, importing what Mattermost's rtcd left there, and begins to measure the load.
    ///
    /// # Errors
    /// Text naming the setting to change.
    pub fn new(config: &Config, connections: Arc<Connections>, sessions: Arc<dyn Sessions>) -> anyhow::Result<Arc<Self>> {
        let (keys, found) = KeyFolder::open(Path::new(&config.data_source)).with_context(|| {
            format!(
                "cannot use the folder {} for clients' keys; set store.data_source (environment RTCD_STORE_DATASOURCE)",
                config.data_source
            )
        })?;
        for damaged in &found.damaged {
            tracing::warn!("a part of the clients' keys is passed over: {damaged}");
        }
        tracing::info!(clients = found.keys, folder = config.data_source, "serving Mattermost's Calls plugin");
        if found.keys == 0 && !config.enable_admin && !config.allow_self_registration {
            tracing::warn!(
                "no Mattermost installation is registered here and none can be: set api.security.enable_admin with an admin_secret_key \
                 and register it, or set api.security.allow_self_registration"
            );
        }
        let settings = AccountSettings {
            admin_key: config.admin_secret_key.as_ref().filter(|_| config.enable_admin).map(|key| key.bytes().to_vec()),
            self_registration: config.allow_self_registration,
            unknown_register_themselves: false,
            token_life: config.session_cache_expiration,
        };
        Ok(Arc::new(Self {
            accounts: Arc::new(Accounts::new(settings, Mutex::new(keys))?),
            connections,
            sessions,
            load: Load::measure(),
            sockets: Arc::new(Semaphore::new(SOCKETS_MAX)),
        }))
    }
}
