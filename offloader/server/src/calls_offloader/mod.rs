//! Mattermost's calls-offloader, as its Calls plugin knows it: the job service's HTTP contract with all its quirks.
//!
//! A Mattermost server registers, asks for a recording and a transcription of a call, and never asks again: what was made of the
//! call comes to it as posts. Here such a job is a capture of ours with what follows from it; docs/compat/calls-offloader.md says of
//! every part of the contract how it stands.

mod clients;
pub mod config;
mod input;
mod jobs;
mod logs;
mod round;
pub(crate) mod routes;
mod runner;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use config::CallsConfig;
use mattermost_accounts::{AccountSettings, Accounts};

use crate::store::Store;

/// The contract, where it is served.
pub(crate) struct Calls {
    /// As configured.
    pub(crate) config: CallsConfig,
    /// Who may ask.
    pub(crate) accounts: Arc<Accounts<Store>>,
    /// Recordings are being deleted.
    pub(crate) purging: AtomicBool,
}

/// Counters for `/metrics`.
#[derive(Default)]
pub(crate) struct CallsCounters {
    /// Jobs brought to their end.
    pub(crate) done: AtomicU64,
    /// Jobs that failed.
    pub(crate) failed: AtomicU64,
    /// Jobs refused because as many ran and waited as may.
    pub(crate) refused: AtomicU64,
    /// Jobs whose turn did not come in time.
    pub(crate) gave_up: AtomicU64,
    /// Captures that reached their longest duration.
    pub(crate) over_time: AtomicU64,
    /// Recordings deleted.
    pub(crate) purged: AtomicU64,
}

impl Calls {
    /// Over the open store, with the clients that the original had. `data`: our own folder.
    pub(crate) async fn new(config: CallsConfig, store: Store, data: &Path) -> anyhow::Result<Self> {
        clients::import(&store, &config.data_source, data).await?;
        let settings = AccountSettings {
            admin_key: config.admin_secret.as_ref().map(|key| key.clone().into_bytes()),
            self_registration: config.self_registration,
            unknown_register_themselves: true,
            token_life: config.session_life,
        };
        Ok(Self { accounts: Arc::new(Accounts::new(settings, store)?), config, purging: AtomicBool::new(false) })
    }

    /// Says once what was taken and does nothing here.
    pub(crate) fn tell_notes(&self) {
        for setting in &self.config.notes {
            tracing::info!(setting, "a setting of calls-offloader that is not needed here or not known: accepted, without effect");
        }
    }
}

/// The data folder of a site that names none: beside its clients' keys, which are where its administrator wanted them to last.
/// True: it may be gone after a restart of the machine.
pub(crate) fn data_folder(config: &CallsConfig, state_directory: Option<String>) -> (PathBuf, bool) {
    let passing = ["/tmp", "/var/tmp", "/dev/shm", "/run"].iter().any(|root| config.data_source.starts_with(root));
    let of_systemd = state_directory.filter(|_| passing).and_then(|list| list.split(':').next().map(PathBuf::from));
    match of_systemd.filter(|path| path.is_absolute()) {
        Some(path) => (path, false),
        None => (Path::new(&config.data_source).join("conclave"), passing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lie_where_the_clients_keys_lie_and_never_in_tmp_unnoticed() {
        let folder = |source: &str, state: Option<&str>| {
            let find = |name: &str| (name == "STORE_DATASOURCE").then(|| source.to_owned());
            data_folder(&CallsConfig::read(None, &find).unwrap(), state.map(str::to_owned))
        };
        assert_eq!(folder("/var/lib/calls", None), ("/var/lib/calls/conclave".into(), false));
        assert_eq!(folder("/var/lib/calls", Some("/var/lib/x")), ("/var/lib/calls/conclave".into(), false));
        assert_eq!(folder("/tmp/calls-offloader-db", Some("/var/lib/x:/var/lib/y")), ("/var/lib/x".into(), false));
        assert_eq!(folder("/tmp/calls-offloader-db", None), ("/tmp/calls-offloader-db/conclave".into(), true));
        assert_eq!(folder("/tmpfoo", None), ("/tmpfoo/conclave".into(), false));
    }
}
