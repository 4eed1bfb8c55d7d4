//! The first administrator: while nobody can administrate, each start prints a link that works once.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    people::accounts::{self, User},
    rights::Role,
    store::Store,
};

/// The file that holds the link, for who missed the line in the log.
pub const LINK_FILE: &str = "first-login.txt";

/// Makes a fresh link if no administrator exists yet; earlier links stop working.
pub async fn offer(store: &Store, data: &Path, address: &str) -> anyhow::Result<Option<String>> {
    let admins: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE roles LIKE '%admin%'").fetch_one(store.read()).await?;
    if admins > 0 {
        return Ok(None);
    }
    let token = ids::token();
    let mut tx = store.write().await?;
    sqlx::query("DELETE FROM setup_tokens").execute(&mut *tx).await?;
    sqlx::query("INSERT INTO setup_tokens (token_hash, expires_at_ms) VALUES ($1, $2)")
        .bind(ids::token_hash(&token))
        .bind(clock::now_ms() + clock::ms(limits::SETUP_LINK_LIFE))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let link = format!("{address}/setup?token={token}");
    write_private(&link_file(data), format!("{link}\n").as_bytes())?;
    Ok(Some(link))
}

/// Where the link lies until it is used.
pub fn link_file(data: &Path) -> PathBuf {
    data.join(LINK_FILE)
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Never through a file somebody else prepared: remove, then create.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Uses the link: creates the administrator. The token is consumed in the same transaction, so it works once.
pub async fn redeem(store: &Store, data: &Path, token: &str, username: &str, display_name: &str, password_hash: &str) -> ApiResult<User> {
    let mut tx = store.write().await?;
    let used = sqlx::query("DELETE FROM setup_tokens WHERE token_hash = $1 AND expires_at_ms > $2")
        .bind(ids::token_hash(token))
        .bind(clock::now_ms())
        .execute(&mut *tx)
        .await?;
    if used.rows_affected() != 1 {
        return Err(dead_link());
    }
    tx.commit().await?;
    let created = accounts::create(store, username, display_name, password_hash, &Role::ALL).await;
    match created {
        Ok(user) => {
            let _gone_already = std::fs::remove_file(link_file(data));
            Ok(user)
        }
        Err(error) => {
            // The name was bad, not the link: let them try again.
            sqlx::query("INSERT INTO setup_tokens (token_hash, expires_at_ms) VALUES ($1, $2)")
                .bind(ids::token_hash(token))
                .bind(clock::now_ms() + clock::ms(limits::SETUP_LINK_LIFE))
                .execute(store.writer())
                .await?;
            Err(error)
        }
    }
}

/// Whether the link would work, before the slow hashing is done for it.
pub async fn is_live(store: &Store, token: &str) -> ApiResult<()> {
    let live: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM setup_tokens WHERE token_hash = $1 AND expires_at_ms > $2")
        .bind(ids::token_hash(token))
        .bind(clock::now_ms())
        .fetch_one(store.read())
        .await?;
    if live == 1 { Ok(()) } else { Err(dead_link()) }
}

fn dead_link() -> ApiError {
    ApiError::refused("This link has been used or is too old. If there is no administrator yet, restart the server: it prints a new one.")
}
