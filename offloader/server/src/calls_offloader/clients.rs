//! Registered clients: rows of our store, and at first those that the original left in its folder.

use std::path::Path;

use anyhow::Context as _;
use mattermost_accounts::key_folder::KeyFolder;
use mattermost_accounts::{Added, Clients};

use crate::limits::CALLS_CLIENTS_MAX;
use crate::store::{Store, StoreError};

/// Says in our data folder that the original's clients have been taken over: one that is removed here does not come back with a restart.
const IMPORTED: &str = "calls-clients-imported";
/// The original keeps its jobs beside the clients, under names that begin so.
const JOB_PREFIX: &str = "job_";

impl Clients for Store {
    async fn hash(&self, client: &str) -> Result<Option<String>, String> {
        self.calls_client_hash(client).await.map_err(told)
    }

    async fn add(&self, client: &str, hash: &str) -> Result<Added, String> {
        self.add_calls_client(client, hash, CALLS_CLIENTS_MAX).await.map_err(told)
    }

    async fn remove(&self, client: &str) -> Result<bool, String> {
        self.remove_calls_client(client).await.map_err(told)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: StoreError) -> String {
    tracing::error!(%error, "the store of clients failed");
    "the store does not answer; try again".to_owned()
}

/// Takes over the clients of the original's folder (`store.data_source`), once. What the folder holds stays as it is.
///
/// # Errors
/// The folder cannot be read, the store or the disk fails.
pub(super) async fn import(store: &Store, source: &Path, data: &Path) -> anyhow::Result<()> {
    let mark = data.join(IMPORTED);
    if mark.try_exists().unwrap_or(false) {
        return Ok(());
    }
    let unreadable = || {
        let source = source.display();
        format!(
            "cannot read the clients of calls-offloader in {source}; give this program the right to, or set store.data_source (STORE_DATASOURCE) to an empty folder"
        )
    };
    let left = KeyFolder::read(source).with_context(unreadable)?;
    let (keys, damaged) = left.map(|(keys, found)| (keys, found.damaged)).unwrap_or_default();
    for damaged in damaged {
        tracing::warn!("a part of what calls-offloader left is passed over: {damaged}");
    }
    let mut taken_over = 0;
    for (client, hash) in keys.iter().filter(|(name, value)| !name.starts_with(JOB_PREFIX) && value.starts_with("$2")) {
        match store.add_calls_client(client, hash, CALLS_CLIENTS_MAX).await? {
            Added::New => taken_over += 1,
            // Registered here or by another offloader already, with a key that is newer.
            Added::Taken => {}
            Added::Full => {
                tracing::warn!(client, "not taken over: there are {CALLS_CLIENTS_MAX} clients already; unregister some, then register it")
            }
        }
    }
    if taken_over > 0 {
        tracing::info!(clients = taken_over, folder = %source.display(), "took over the clients of calls-offloader");
    }
    std::fs::write(&mark, "")
        .with_context(|| format!("cannot write {}; OFFLOADER_DATA must be a folder that can be written", mark.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn the_originals_clients_are_taken_over_once_and_its_jobs_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (source, data) = (folder.path().join("theirs"), folder.path().join("ours"));
        std::fs::create_dir(&data).unwrap();
        let store = Store::open(&format!("sqlite://{}?mode=rwc", folder.path().join("jobs.db").display())).await.unwrap();
        let hash = |n: u32| format!("$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z{n}");
        let keys = Mutex::new(KeyFolder::open(&source).unwrap().0);
        for (name, value) in [("a", hash(1)), ("b", hash(2)), ("c", hash(3)), ("job_x", r#"{"auth_token":"t"}"#.to_owned())] {
            assert_eq!(keys.add(name, &value).await, Ok(Added::New));
        }
        assert_eq!(keys.remove("c").await, Ok(true));
        // It has registered here in the meantime, with another key.
        assert_eq!(store.add("b", &hash(9)).await, Ok(Added::New));
        for _ in 0..2 {
            import(&store, &source, &data).await.unwrap();
            for (name, kept) in [("b", Some(hash(9))), ("c", None), ("job_x", None)] {
                assert_eq!(store.hash(name).await, Ok(kept), "{name}");
            }
        }
        assert_eq!(store.hash("a").await, Ok(Some(hash(1))));
        assert_eq!(store.remove("a").await, Ok(true));
        import(&store, &source, &data).await.unwrap();
        assert_eq!(store.hash("a").await, Ok(None), "who was removed here stays removed");
        assert_eq!(keys.hash("a").await, Ok(Some(hash(1))), "theirs stays as it is");
    }

    #[tokio::test]
    async fn a_site_that_had_none_starts_with_nobody_and_a_full_store_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}?mode=rwc", folder.path().join("jobs.db").display())).await.unwrap();
        import(&store, &folder.path().join("nothing"), folder.path()).await.unwrap();
        assert!(!folder.path().join("nothing").exists());
        assert_eq!(store.add_calls_client("a", "$2a", 1).await.unwrap(), Added::New);
        assert_eq!(store.add_calls_client("b", "$2a", 1).await.unwrap(), Added::Full, "one is all that there may be");
    }
}
