//! Signed-in browsers: an opaque random cookie whose hash lies in the database, and the extractor that reads it.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use sqlx::Row as _;

use crate::{
    app::App,
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    rights::{Role, Viewer},
    store::Store,
};

/// The cookie's name.
pub const COOKIE: &str = "conclave_session";

/// Whose session it is.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'a> {
    /// A person.
    User(&'a str),
    /// A guest of one call.
    Guest(&'a str),
}

/// Opens a session; the answer is the cookie's value.
pub async fn open(store: &Store, owner: Owner<'_>) -> ApiResult<String> {
    let token = ids::token();
    let now = clock::now_ms();
    let (user, guest, life) = match owner {
        Owner::User(id) => (Some(id), None, limits::SESSION_LIFE),
        Owner::Guest(id) => (None, Some(id), limits::GUEST_SESSION_LIFE),
    };
    let mut tx = store.write().await?;
    sqlx::query("DELETE FROM sessions WHERE expires_at_ms <= $1").bind(now).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO sessions (token_hash, user_id, guest_id, created_at_ms, expires_at_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(ids::token_hash(&token))
        .bind(user)
        .bind(guest)
        .bind(now)
        .bind(now + clock::ms(life))
        .execute(&mut *tx)
        .await?;
    if let Some(user) = user {
        sqlx::query(
            "DELETE FROM sessions WHERE user_id = $1 AND token_hash NOT IN \
             (SELECT token_hash FROM sessions WHERE user_id = $2 ORDER BY created_at_ms DESC LIMIT $3)",
        )
        .bind(user)
        .bind(user)
        .bind(limits::SESSIONS_PER_USER)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(token)
}

/// Ends a session.
pub async fn close(store: &Store, token: &str) -> ApiResult<()> {
    sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(ids::token_hash(token)).execute(store.writer()).await?;
    Ok(())
}

/// Who a cookie belongs to. Roles and names are read fresh each time, so that a change works at once.
pub async fn viewer(store: &Store, token: &str) -> ApiResult<Option<Viewer>> {
    viewer_of(store, &ids::token_hash(token)).await
}

/// The same by the token's hash.
pub async fn viewer_of(store: &Store, session: &str) -> ApiResult<Option<Viewer>> {
    let row = sqlx::query(
        "SELECT s.guest_id, u.id AS user_id, u.username, u.display_name AS user_name, u.roles, \
                g.call_id AS guest_call, g.display_name AS guest_name \
         FROM sessions s LEFT JOIN users u ON u.id = s.user_id AND u.disabled = 0 LEFT JOIN guests g ON g.id = s.guest_id \
         WHERE s.token_hash = $1 AND s.expires_at_ms > $2",
    )
    .bind(session)
    .bind(clock::now_ms())
    .fetch_optional(store.read())
    .await?;
    let Some(row) = row else { return Ok(None) };
    if let (Some(id), Some(call)) = (row.try_get("guest_id")?, row.try_get("guest_call")?) {
        return Ok(Some(Viewer {
            id,
            display_name: row.try_get("guest_name")?,
            username: String::new(),
            roles: Vec::new(),
            guest_call: Some(call),
        }));
    }
    let Some(id) = row.try_get::<Option<String>, _>("user_id")? else { return Ok(None) };
    Ok(Some(Viewer {
        id,
        display_name: row.try_get("user_name")?,
        username: row.try_get("username")?,
        roles: Role::parse_set(row.try_get("roles")?),
        guest_call: None,
    }))
}

/// The session cookie of a request.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE && value.len() <= 128).then_some(value)
    })
}

/// `Set-Cookie` for a new session. `Secure` also on http://localhost: browsers count it as a secure context.
pub fn set_cookie(token: &str, life: std::time::Duration) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{COOKIE}={token}; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age={}", life.as_secs())).ok()
}

/// `Set-Cookie` that forgets the session.
pub fn clear_cookie() -> HeaderValue {
    HeaderValue::from_static("conclave_session=; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0")
}

impl FromRequestParts<Arc<App>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let token = cookie(&parts.headers).ok_or_else(ApiError::signed_out)?;
        viewer(&app.store, token).await?.ok_or_else(ApiError::signed_out)
    }
}

impl OptionalFromRequestParts<Arc<App>> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Self>, ApiError> {
        match cookie(&parts.headers) {
            Some(token) => viewer(&app.store, token).await,
            None => Ok(None),
        }
    }
}
