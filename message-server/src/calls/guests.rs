//! Guest links: each opens one call, for a day, while the call runs and no guest who came by it was removed. Only the hash
//! of a link is kept.

use sqlx::Row as _;

use crate::{
    calls, clock,
    error::{ApiError, ApiResult},
    ids, limits,
    store::Store,
};

/// A new link's token and when it stops working.
pub async fn invite(store: &Store, call: &str, by: &str) -> ApiResult<(String, i64)> {
    let now = clock::now_ms();
    let alive: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM guest_links WHERE call_id = $1 AND expires_at_ms > $2")
        .bind(call)
        .bind(now)
        .fetch_one(store.read())
        .await?;
    if alive >= limits::GUEST_LINKS_PER_CALL {
        return Err(ApiError::conflict("This call has many guest links already. Use one of them: a link admits several guests."));
    }
    let token = ids::token();
    let expires_at_ms = now + clock::ms(limits::GUEST_LINK_LIFE);
    sqlx::query("INSERT INTO guest_links (token_hash, call_id, created_by, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(ids::token_hash(&token))
        .bind(call)
        .bind(by)
        .bind(now)
        .bind(expires_at_ms)
        .execute(store.writer())
        .await?;
    Ok((token, expires_at_ms))
}

/// Lets a guest in; returns the guest's id.
pub async fn redeem(store: &Store, token: &str, display_name: &str) -> ApiResult<String> {
    let now = clock::now_ms();
    let link = ids::token_hash(token);
    let row = sqlx::query("SELECT call_id FROM guest_links WHERE token_hash = $1 AND expires_at_ms > $2")
        .bind(&link)
        .bind(now)
        .fetch_optional(store.read())
        .await?;
    let row = row.ok_or_else(dead_link)?;
    let call: String = row.try_get("call_id")?;
    calls::running(store, &call).await?;
    let mut tx = store.write_call(&call).await?;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM guests WHERE call_id = $1").bind(&call).fetch_one(&mut *tx).await?;
    if count >= limits::GUESTS_PER_CALL {
        return Err(ApiError::conflict("This call has had all the guests it can take. Ask the host for an account."));
    }
    // Looked at once more under the lock: a host may be taking the link back in this very moment.
    let alive: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM guest_links WHERE token_hash = $1").bind(&link).fetch_one(&mut *tx).await?;
    if alive == 0 {
        return Err(dead_link());
    }
    let id = ids::id("g");
    sqlx::query("INSERT INTO guests (id, call_id, display_name, created_at_ms, link_hash) VALUES ($1, $2, $3, $4, $5)")
        .bind(&id)
        .bind(&call)
        .bind(format!("{display_name} (guest)"))
        .bind(now)
        .bind(&link)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(id)
}

fn dead_link() -> ApiError {
    ApiError::refused("This guest link does not work (any more). Ask the host for a new one.")
}

/// A host removes somebody from a call. For a guest this call is all there is: the session ends, and the link it came by
/// opens nothing any more, for else the guest would come back as another one. Others who came by the same link stay.
pub async fn remove(store: &Store, call: &str, identity: &str) -> ApiResult<()> {
    let mut tx = store.write_call(call).await?;
    sqlx::query("UPDATE participants SET removed_at_ms = $1 WHERE call_id = $2 AND identity = $3")
        .bind(clock::now_ms())
        .bind(call)
        .bind(identity)
        .execute(&mut *tx)
        .await?;
    sqlx::query("DELETE FROM sessions WHERE guest_id = $1").bind(identity).execute(&mut *tx).await?;
    sqlx::query("DELETE FROM guest_links WHERE token_hash IN (SELECT link_hash FROM guests WHERE id = $1)")
        .bind(identity)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}
