//! Accounts in the database.

use serde::Serialize;
use sqlx::Row as _;
use utoipa::ToSchema;

use crate::{
    clock,
    error::{ApiError, ApiResult},
    ids, limits,
    rights::Role,
    store::{Store, is_duplicate},
};

/// A person, as administrators see them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct User {
    /// `u-…`
    pub id: String,
    /// Sign-in name.
    pub username: String,
    /// Name that others see.
    pub display_name: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// May not sign in.
    pub disabled: bool,
    /// Unix ms.
    pub created_at_ms: i64,
    /// Media tickets from before are not good any more, Unix ms.
    #[serde(skip)]
    pub sessions_valid_from_ms: i64,
}

/// A person, as everybody sees them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Person {
    /// `u-…` or `g-…`
    pub id: String,
    /// Name.
    pub display_name: String,
}

/// What to change of a person; `None` leaves it.
#[derive(Debug, Default)]
pub struct Change {
    /// New name.
    pub display_name: Option<String>,
    /// New set of roles.
    pub roles: Option<Vec<Role>>,
    /// New password's hash; signs the person out everywhere.
    pub password_hash: Option<String>,
    /// Disable or enable; disabling signs out everywhere.
    pub disabled: Option<bool>,
}

fn user_from(row: &sqlx::any::AnyRow) -> Result<User, sqlx::Error> {
    Ok(User {
        id: row.try_get("id")?,
        username: row.try_get("username")?,
        display_name: row.try_get("display_name")?,
        roles: Role::parse_set(row.try_get("roles")?),
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        created_at_ms: row.try_get("created_at_ms")?,
        sessions_valid_from_ms: row.try_get("sessions_valid_from_ms")?,
    })
}

/// Everybody, by name.
pub async fn list(store: &Store) -> ApiResult<Vec<User>> {
    let rows = sqlx::query("SELECT * FROM users ORDER BY username LIMIT $1").bind(limits::USERS).fetch_all(store.read()).await?;
    Ok(rows.iter().map(user_from).collect::<Result<_, _>>()?)
}

/// One person.
pub async fn find(store: &Store, id: &str) -> ApiResult<Option<User>> {
    let row = sqlx::query("SELECT * FROM users WHERE id = $1").bind(id).fetch_optional(store.read()).await?;
    Ok(row.as_ref().map(user_from).transpose()?)
}

/// For sign-in: the person and the password's hash.
pub async fn by_username(store: &Store, username: &str) -> ApiResult<Option<(User, String)>> {
    let row = sqlx::query("SELECT * FROM users WHERE username = $1").bind(username).fetch_optional(store.read()).await?;
    row.map(|row| Ok((user_from(&row)?, row.try_get("password_hash")?))).transpose()
}

/// People whose name contains `q`, for choosing whom to call.
pub async fn search(store: &Store, q: &str) -> ApiResult<Vec<Person>> {
    let pattern = format!("%{}%", q.to_lowercase().replace(['%', '_', '\\'], ""));
    let rows = sqlx::query(
        "SELECT id, display_name FROM users WHERE disabled = 0 AND (LOWER(display_name) LIKE $1 OR username LIKE $2) \
         ORDER BY display_name LIMIT $3",
    )
    .bind(&pattern)
    .bind(&pattern)
    .bind(limits::PEOPLE_PER_PAGE)
    .fetch_all(store.read())
    .await?;
    rows.iter().map(|row| Ok(Person { id: row.try_get("id")?, display_name: row.try_get("display_name")? })).collect()
}

/// Creates a person.
pub async fn create(store: &Store, username: &str, display_name: &str, password_hash: &str, roles: &[Role]) -> ApiResult<User> {
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users").fetch_one(store.read()).await?;
    if count >= limits::USERS {
        return Err(ApiError::conflict(
            "This server has all the people it can hold. Disable is not enough: move to a larger installation.",
        ));
    }
    let user = User {
        id: ids::id("u"),
        username: username.to_owned(),
        display_name: display_name.to_owned(),
        roles: Role::parse_set(&Role::format_set(roles)),
        disabled: false,
        created_at_ms: clock::now_ms(),
        sessions_valid_from_ms: 0,
    };
    let inserted = sqlx::query(
        "INSERT INTO users (id, username, display_name, password_hash, roles, disabled, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, 0, $6)",
    )
    .bind(&user.id)
    .bind(&user.username)
    .bind(&user.display_name)
    .bind(password_hash)
    .bind(Role::format_set(&user.roles))
    .bind(user.created_at_ms)
    .execute(store.writer())
    .await;
    match inserted {
        Ok(_) => Ok(user),
        Err(error) if is_duplicate(&error) => Err(ApiError::conflict("That user name is taken. Choose another one.")),
        Err(error) => Err(error.into()),
    }
}

/// Changes a person. The last administrator who can sign in stays one.
pub async fn change(store: &Store, id: &str, change: Change) -> ApiResult<User> {
    let mut tx = store.write().await?;
    let row = sqlx::query("SELECT * FROM users WHERE id = $1").bind(id).fetch_optional(&mut *tx).await?;
    let Some(row) = row else { return Err(ApiError::not_found("person")) };
    let mut user = user_from(&row)?;
    let conversed = Role::converse(&user.roles);
    let was_admin = user.roles.contains(&Role::Admin) && !user.disabled;
    if let Some(name) = change.display_name {
        user.display_name = name;
    }
    if let Some(roles) = change.roles {
        user.roles = Role::parse_set(&Role::format_set(&roles));
    }
    if let Some(disabled) = change.disabled {
        user.disabled = disabled;
    }
    if was_admin && (user.disabled || !user.roles.contains(&Role::Admin)) {
        let others: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM users WHERE id <> $1 AND disabled = 0 AND roles LIKE '%admin%'")
            .bind(id)
            .fetch_one(&mut *tx)
            .await?;
        if others == 0 {
            return Err(ApiError::conflict("This is the last administrator. Give the role admin to somebody else first."));
        }
    }
    if change.password_hash.is_some() || user.disabled || (conversed && !Role::converse(&user.roles)) {
        user.sessions_valid_from_ms = clock::now_ms();
    }
    sqlx::query("UPDATE users SET display_name = $1, roles = $2, disabled = $3, sessions_valid_from_ms = $4 WHERE id = $5")
        .bind(&user.display_name)
        .bind(Role::format_set(&user.roles))
        .bind(i64::from(user.disabled))
        .bind(user.sessions_valid_from_ms)
        .bind(id)
        .execute(&mut *tx)
        .await?;
    if let Some(hash) = &change.password_hash {
        sqlx::query("UPDATE users SET password_hash = $1 WHERE id = $2").bind(hash).bind(id).execute(&mut *tx).await?;
    }
    if change.password_hash.is_some() || user.disabled {
        sqlx::query("DELETE FROM sessions WHERE user_id = $1").bind(id).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(user)
}
