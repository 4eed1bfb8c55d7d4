//! Guest links: each opens one call, for a day, while the call runs. Only the hash of a link is kept.

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
    let row = sqlx::query("SELECT call_id FROM guest_links WHERE token_hash = $1 AND expires_at_ms > $2")
        .bind(ids::token_hash(token))
        .bind(now)
        .fetch_optional(store.read())
        .await?;
    let Some(row) = row else {
        return Err(ApiError::refused("This guest link does not work (any more). Ask the host for a new one."));
    };
    let call: String = row.try_get("call_id")?;
    calls::running(store, &call).await?;
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM guests WHERE call_id = $1").bind(&call).fetch_one(store.read()).await?;
    if count >= limits::GUESTS_PER_CALL {
        return Err(ApiError::conflict("This call has had all the guests it can take. Ask the host for an account."));
    }
    let id = ids::id("g");
    sqlx::query("INSERT INTO guests (id, call_id, display_name, created_at_ms) VALUES ($1, $2, $3, $4)")
        .bind(&id)
        .bind(&call)
        .bind(format!("{display_name} (guest)"))
        .bind(now)
        .execute(store.writer())
        .await?;
    Ok(id)
}
