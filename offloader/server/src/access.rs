//! Accesses: written down before anything is shown, and signed for at regular times.

use std::sync::atomic::Ordering;

use crate::app::{App, lock};
use crate::limits::{AUDIT_HEAD_ENTRIES, AUDIT_HEAD_MS, LATELY_MAX, QUIET_MS};
use crate::objects::{ObjectError, names};
use crate::store::audit::{Actor, AuditHead, AuditReport};
use crate::store::{StoreError, unix_ms};

/// A check of the log could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Object store.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A head in the object store.
    #[error("a signed head in the object store cannot be read: {0}")]
    Head(#[from] serde_json::Error),
}

impl App {
    /// Writes an access down. If that fails, nothing may be shown.
    pub async fn note_access(&self, actor: &Actor, action: &str, recording_id: &str, detail: &str) -> Result<(), StoreError> {
        self.store.append_audit(unix_ms(), actor, action, recording_id, detail).await?;
        self.counts.accesses.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The same for what a page or a player asks for again and again: once within a while.
    pub async fn note_quietly(&self, actor: &Actor, action: &'static str, recording_id: &str, detail: &str) -> Result<(), StoreError> {
        let now_ms = unix_ms();
        let key = (actor.id.clone(), action, recording_id.to_owned());
        let quiet = lock(&self.lately).get(&key).is_some_and(|since| now_ms - since < QUIET_MS);
        if quiet {
            return Ok(());
        }
        self.note_access(actor, action, recording_id, detail).await?;
        let mut lately = lock(&self.lately);
        if lately.len() >= LATELY_MAX {
            // Forgetting only means one line more in the log.
            lately.clear();
        }
        lately.insert(key, now_ms);
        Ok(())
    }

    /// Signs the head of the log if enough was added, and keeps a copy where the log is not.
    pub async fn sign_audit_head(&self) -> anyhow::Result<()> {
        let (n, hash) = self.store.audit_end().await?;
        let last = self.store.audit_head().await?;
        let (covered, at_ms) = last.map_or((0, 0), |head| (head.n, head.at_ms));
        let now_ms = unix_ms();
        if n == covered || (n - covered < AUDIT_HEAD_ENTRIES && now_ms - at_ms < AUDIT_HEAD_MS) {
            return Ok(());
        }
        let head = AuditHead::sign(n, now_ms, hash, &self.keys.signer);
        let name = format!("{}/{n:012}.json", names::AUDIT_HEADS);
        let kept = match self.objects.put(&name, serde_json::to_vec(&head)?.into()).await {
            Ok(()) => head,
            // Another offloader was faster, or ended before it could tell the log.
            Err(ObjectError::Differs(_)) => {
                let theirs: AuditHead = serde_json::from_slice(&self.objects.get(&name).await?)?;
                anyhow::ensure!(
                    theirs.verify().is_ok_and(|key| self.keys.signer.knows(key)) && theirs.hash == head.hash,
                    "the object store has another head over {n} entries"
                );
                theirs
            }
            Err(error) => return Err(error.into()),
        };
        self.store.add_audit_head(&kept).await?;
        Ok(())
    }

    /// Checks the log against itself, its signatures and the heads in the object store.
    pub async fn check_audit(&self) -> Result<AuditReport, AuditError> {
        let mut witnesses = Vec::new();
        for name in self.objects.list(names::AUDIT_HEADS).await? {
            witnesses.push(serde_json::from_slice(&self.objects.get(&name).await?)?);
        }
        Ok(self.store.check_audit(&self.keys.signer, &witnesses).await?)
    }
}
