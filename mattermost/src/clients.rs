//! Where the hashes of clients' keys are kept.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key_folder::KeyFolder;

/// Names of clients and the bcrypt hashes of their keys. Errors are texts for who asked; the details are in the log.
pub trait Clients: Send + Sync + 'static {
    /// The hash of a client's key.
    fn hash(&self, client: &str) -> impl Future<Output = Result<Option<String>, String>> + Send;
    /// Keeps a new client, if nobody has its name and there is room.
    fn add(&self, client: &str, hash: &str) -> impl Future<Output = Result<Added, String>> + Send;
    /// Forgets a client. False: there is none of that name.
    fn remove(&self, client: &str) -> impl Future<Output = Result<bool, String>> + Send;
}

/// What became of a client that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is kept.
    New,
    /// Somebody has that name.
    Taken,
    /// There are as many as there may be.
    Full,
}

/// In a folder of the original's layout: read into memory at start, appended to and synced since.
impl Clients for Mutex<KeyFolder> {
    async fn hash(&self, client: &str) -> Result<Option<String>, String> {
        Ok(locked(self).get(client).map(str::to_owned))
    }

    async fn add(&self, client: &str, hash: &str) -> Result<Added, String> {
        let mut folder = locked(self);
        if folder.get(client).is_some() {
            return Ok(Added::Taken);
        }
        if folder.is_full() {
            return Ok(Added::Full);
        }
        folder.put(client, hash).map_err(|error| format!("failed to set key: {error}"))?;
        Ok(Added::New)
    }

    async fn remove(&self, client: &str) -> Result<bool, String> {
        let mut folder = locked(self);
        if folder.get(client).is_none() {
            return Ok(false);
        }
        folder.delete(client).map_err(|error| error.to_string())?;
        Ok(true)
    }
}

fn locked(folder: &Mutex<KeyFolder>) -> MutexGuard<'_, KeyFolder> {
    folder.lock().unwrap_or_else(PoisonError::into_inner)
}
