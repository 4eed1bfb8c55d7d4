//! The audit log: who did what with which recording, each entry bound to the one before it.
//!
//! An entry is written before what it tells of is shown. The head of the chain is signed regularly, and
//! the signed heads also go to the object store: cutting entries off the end leaves a head without its log.

use archive::keys::{KeyError, PublicKey, SiteSigner};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Dialect, Store, StoreError};
use crate::limits::ACCESSES_MAX;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// User id.
    pub id: String,
    /// Name for people.
    pub name: String,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Position, from 1.
    pub n: i64,
    /// When.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// Name at that time.
    pub actor_name: String,
    /// What: `search`, `view`, `play`, `download`, `verify`, `accesses`, `purge`.
    pub action: String,
    /// The recording, if it was one.
    pub recording_id: String,
    /// With what.
    pub detail: String,
}

/// A signed head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Entries covered.
    pub n: i64,
    /// When it was signed.
    pub at_ms: i64,
    /// Hash of the last of them.
    pub hash: String,
    /// Public key that signs.
    pub public_key: String,
    /// Ed25519.
    pub signature: String,
}

impl AuditHead {
    fn text(n: i64, at_ms: i64, hash: &str) -> Vec<u8> {
        format!("conclave audit head v1\n{n}\n{at_ms}\n{hash}\n").into_bytes()
    }

    /// Signs one.
    pub fn sign(n: i64, at_ms: i64, hash: String, signer: &SiteSigner) -> Self {
        let signature = hex::encode(signer.sign(&Self::text(n, at_ms, &hash)));
        Self { n, at_ms, hash, public_key: signer.public().to_hex(), signature }
    }

    /// Checks the signature; gives the key.
    pub fn verify(&self) -> Result<PublicKey, KeyError> {
        let key = PublicKey::from_hex(&self.public_key)?;
        key.verify_hex("an audit head", &Self::text(self.n, self.at_ms, &self.hash), &self.signature)?;
        Ok(key)
    }
}

/// What a check of the log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Everything holds.
    pub ok: bool,
    /// Entries checked.
    pub entries: i64,
    /// Signed heads checked.
    pub heads: i64,
    /// The first thing that does not hold.
    pub first_bad: Option<String>,
}

const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Store {
    /// Appends an entry; once this returns it is durable.
    pub async fn append_audit(
        &self,
        at_ms: i64,
        actor: &Actor,
        action: &str,
        recording_id: &str,
        detail: &str,
    ) -> Result<Access, StoreError> {
        let mut transaction = self.begin().await?;
        if self.dialect == Dialect::Postgres {
            // One chain: writers queue here.
            sqlx::query("SELECT pg_advisory_xact_lock(845452)").execute(&mut *transaction).await?;
        }
        let last = sqlx::query("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetch_optional(&mut *transaction).await?;
        let (n, prev): (i64, String) = match last {
            Some(row) => (row.try_get("n")?, row.try_get("hash")?),
            None => (0, FIRST.to_owned()),
        };
        let access = Access {
            n: n + 1,
            at_ms,
            actor: actor.id.clone(),
            actor_name: actor.name.clone(),
            action: action.to_owned(),
            recording_id: recording_id.to_owned(),
            detail: detail.to_owned(),
        };
        let hash = hash(&prev, &access);
        sqlx::query("INSERT INTO audit (n, at_ms, actor, actor_name, action, recording_id, detail, prev, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
            .bind(access.n)
            .bind(at_ms)
            .bind(&access.actor)
            .bind(&access.actor_name)
            .bind(&access.action)
            .bind(&access.recording_id)
            .bind(&access.detail)
            .bind(prev)
            .bind(hash)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(access)
    }

    /// Entries about a recording, or by somebody, or all; the newest first.
    pub async fn accesses(&self, recording_id: &str, actor: &str) -> Result<Vec<Access>, StoreError> {
        let sql = "SELECT * FROM audit WHERE ($1 = '' OR recording_id = $1) AND ($2 = '' OR actor = $2) ORDER BY n DESC LIMIT $3";
        let rows = sqlx::query(sql).bind(recording_id).bind(actor).bind(ACCESSES_MAX).fetch_all(&self.read).await?;
        rows.iter().map(access_of).collect()
    }

    /// Number and hash of the last entry.
    pub async fn audit_end(&self) -> Result<(i64, String), StoreError> {
        let last = sqlx::query("SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1").fetch_optional(&self.read).await?;
        last.map_or(Ok((0, FIRST.to_owned())), |row| Ok((row.try_get("n")?, row.try_get("hash")?)))
    }

    /// Keeps a signed head.
    pub async fn add_audit_head(&self, head: &AuditHead) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO audit_heads (n, at_ms, hash, public_key, signature) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (n) DO NOTHING",
        )
        .bind(head.n)
        .bind(head.at_ms)
        .bind(&head.hash)
        .bind(&head.public_key)
        .bind(&head.signature)
        .execute(&self.write)
        .await?;
        Ok(())
    }

    /// The latest signed head.
    pub async fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        let row = sqlx::query("SELECT * FROM audit_heads ORDER BY n DESC LIMIT 1").fetch_optional(&self.read).await?;
        row.as_ref().map(head_of).transpose()
    }

    /// Checks the whole chain, its signed heads, and heads kept elsewhere (`witnesses`). Heads must be
    /// signed by the site, with its key or with an older one.
    pub async fn check_audit(&self, site: &SiteSigner, witnesses: &[AuditHead]) -> Result<AuditReport, StoreError> {
        let mut heads: Vec<AuditHead> = Vec::new();
        for row in &sqlx::query("SELECT * FROM audit_heads ORDER BY n").fetch_all(&self.read).await? {
            heads.push(head_of(row)?);
        }
        heads.extend_from_slice(witnesses);
        let mut report = AuditReport { ok: false, entries: 0, heads: heads.len() as i64, first_bad: None };
        for head in &heads {
            if let Err(error) = head.verify().and_then(|key| site.check("the head", key)) {
                report.first_bad = Some(format!("the signed head over {} entries: {error}", head.n));
                return Ok(report);
            }
        }
        let mut prev = FIRST.to_owned();
        loop {
            let rows =
                sqlx::query("SELECT * FROM audit WHERE n > $1 ORDER BY n LIMIT 1000").bind(report.entries).fetch_all(&self.read).await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                let access = access_of(row)?;
                let stored: (String, String) = (row.try_get("prev")?, row.try_get("hash")?);
                let expected = hash(&prev, &access);
                let wrong_head = heads.iter().any(|head| head.n == access.n && head.hash != expected);
                if access.n != report.entries + 1 || stored != (prev, expected.clone()) || wrong_head {
                    report.first_bad = Some(format!("entry {}", report.entries + 1));
                    return Ok(report);
                }
                report.entries = access.n;
                prev = expected;
            }
        }
        if let Some(head) = heads.iter().find(|head| head.n > report.entries) {
            report.first_bad = Some(format!("entries after {} are missing: a signed head covers {}", report.entries, head.n));
            return Ok(report);
        }
        report.ok = true;
        Ok(report)
    }
}

fn hash(prev: &str, access: &Access) -> String {
    // Lengths before texts: no two entries share one spelling.
    let mut text = format!("conclave audit v1\n{prev}\n{}\n{}\n", access.n, access.at_ms);
    for field in [&access.actor, &access.actor_name, &access.action, &access.recording_id, &access.detail] {
        text.push_str(&format!("{}:{field}\n", field.len()));
    }
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

fn access_of(row: &AnyRow) -> Result<Access, StoreError> {
    Ok(Access {
        n: row.try_get("n")?,
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        actor_name: row.try_get("actor_name")?,
        action: row.try_get("action")?,
        recording_id: row.try_get("recording_id")?,
        detail: row.try_get("detail")?,
    })
}

fn head_of(row: &AnyRow) -> Result<AuditHead, StoreError> {
    Ok(AuditHead {
        n: row.try_get("n")?,
        at_ms: row.try_get("at_ms")?,
        hash: row.try_get("hash")?,
        public_key: row.try_get("public_key")?,
        signature: row.try_get("signature")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_holds_over_a_change_of_the_signing_key_where_the_older_one_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", dir.path().join("a.db").display())).await.unwrap();
        let signer = || SiteSigner::from_pkcs8(&SiteSigner::generate_pkcs8().unwrap()).unwrap();
        let (before, now) = (signer(), signer());
        for (at_ms, signer) in [(1, &before), (2, &now)] {
            store.append_audit(at_ms, &Actor::default(), "play", "rec-1", "").await.unwrap();
            let (n, hash) = store.audit_end().await.unwrap();
            store.add_audit_head(&AuditHead::sign(n, at_ms, hash, signer)).await.unwrap();
        }
        let report = store.check_audit(&now, &[]).await.unwrap();
        let why = report.first_bad.unwrap();
        assert!(!report.ok && why.contains("over 1 entries") && why.contains("OFFLOADER_OLDER_SIGNING_KEYS"), "{why}");
        let now = now.with_older(vec![before.public()]);
        let report = store.check_audit(&now, &[]).await.unwrap();
        assert_eq!((report.ok, report.entries, report.heads, report.first_bad), (true, 2, 2, None));
        // A key that was never the site's is not taken for the one before.
        let (n, hash) = store.audit_end().await.unwrap();
        let theirs = AuditHead::sign(n, 3, hash, &signer());
        assert!(!store.check_audit(&now, &[theirs]).await.unwrap().ok);
    }
}
