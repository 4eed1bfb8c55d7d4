//! `/session`, `/users`, `/people`.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    calls::guests,
    error::{ApiError, ApiResult, ErrorBody},
    limits,
    people::{
        accounts::{self, Person, User},
        names, sessions, setup,
    },
    rights::{Deed, Role, Viewer},
    web::{body::Body, source::Source},
};

/// Who is signed in and what this installation offers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    /// The person.
    pub user: SessionUser,
    /// Parts that are configured.
    pub features: Features,
    /// The recording notice.
    pub notice: Notice,
}

/// The signed-in person or guest.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionUser {
    /// `u-…` or `g-…`; the identity in calls.
    pub id: String,
    /// Sign-in name; empty for guests.
    pub username: String,
    /// Name that others see.
    pub display_name: String,
    /// What they may do.
    pub roles: Vec<Role>,
    /// The only call a guest may see.
    pub guest_call_id: Option<String>,
}

/// What this installation offers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Features {
    /// Calls can be recorded.
    pub recording: bool,
    /// Recordings are transcribed.
    pub transcription: bool,
    /// Live captions.
    pub captions: bool,
}

/// What participants are asked before they are recorded.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Notice {
    /// Goes into the record with each answer.
    pub version: String,
    /// Shown as it is.
    pub text: String,
}

fn session_of(app: &App, viewer: &Viewer) -> Session {
    let offloader = app.jobs.is_some();
    Session {
        user: SessionUser {
            id: viewer.id.clone(),
            username: viewer.username.clone(),
            display_name: viewer.display_name.clone(),
            roles: viewer.roles.clone(),
            guest_call_id: viewer.guest_call.clone(),
        },
        features: Features { recording: offloader, transcription: offloader, captions: offloader },
        notice: Notice { version: app.settings.notice_version.clone(), text: app.settings.notice_text.clone() },
    }
}

async fn signed_in(app: &App, owner: sessions::Owner<'_>) -> ApiResult<Response> {
    let token = sessions::open(&app.store, owner).await?;
    let viewer = sessions::viewer(&app.store, &token).await?.ok_or_else(|| ApiError::internal("a new session is not there"))?;
    let life = match owner {
        sessions::Owner::User(_) => limits::SESSION_LIFE,
        sessions::Owner::Guest(_) => limits::GUEST_SESSION_LIFE,
    };
    let cookie = sessions::set_cookie(&token, life).ok_or_else(|| ApiError::internal("a cookie with odd characters"))?;
    Ok(([(header::SET_COOKIE, cookie)], Json(session_of(app, &viewer))).into_response())
}

/// Who is signed in.
#[utoipa::path(get, path = "/session", tag = "session",
    responses((status = 200, body = Session), (status = 401, body = ErrorBody)))]
pub async fn get_session(State(app): State<Arc<App>>, viewer: Viewer) -> Json<Session> {
    Json(session_of(&app, &viewer))
}

/// Name and password.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SignIn {
    username: String,
    password: String,
}

/// Sign in; sets the session cookie.
#[utoipa::path(post, path = "/session", tag = "session", request_body = SignIn,
    responses((status = 200, body = Session), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub async fn sign_in(State(app): State<Arc<App>>, Source(source): Source, Body(body): Body<SignIn>) -> ApiResult<Response> {
    let account = body.username.trim().to_ascii_lowercase();
    let account: String = account.chars().take(64).collect();
    if let Some(seconds) = app.sign_in_limits.wait_s(Instant::now(), &account, source) {
        app.metrics.sign_ins_refused.add(1);
        return Err(ApiError::too_many(
            seconds,
            format!("Too many failed sign-ins. Wait {} minutes, or ask an administrator for a new password.", seconds.div_ceil(60)),
        ));
    }
    // Counted before the answer is known, and taken back on success: parallel guesses do not slip through.
    app.sign_in_limits.failed(Instant::now(), &account, source);
    let found = accounts::by_username(&app.store, &account).await?;
    let fits = app.passwords.verify(&body.password, found.as_ref().map(|(_, hash)| hash.as_str())).await?;
    match found {
        Some((user, _)) if fits && !user.disabled => {
            app.sign_in_limits.succeeded(&account, source);
            tracing::info!(user = %user.id, "signed in");
            signed_in(&app, sessions::Owner::User(&user.id)).await
        }
        Some(_) | None => {
            app.metrics.sign_ins_refused.add(1);
            Err(ApiError::refused("User name or password is wrong. Check both and try again."))
        }
    }
}

/// Sign out.
#[utoipa::path(delete, path = "/session", tag = "session", responses((status = 204)))]
pub async fn sign_out(State(app): State<Arc<App>>, headers: HeaderMap) -> ApiResult<Response> {
    if let Some(token) = sessions::cookie(&headers) {
        sessions::close(&app.store, token).await?;
        app.hub.close_session(&crate::ids::token_hash(token));
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, sessions::clear_cookie())]).into_response())
}

/// The first administrator's account.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Setup {
    token: String,
    username: String,
    display_name: String,
    password: String,
}

/// Use the one-time link that the first start printed.
#[utoipa::path(post, path = "/session/setup", tag = "session", request_body = Setup,
    responses((status = 200, body = Session), (status = 401, body = ErrorBody)))]
pub async fn set_up(State(app): State<Arc<App>>, Body(body): Body<Setup>) -> ApiResult<Response> {
    setup::is_live(&app.store, &body.token).await?;
    let username = names::username(&body.username)?;
    let display_name = names::display_name(&body.display_name, "Your name")?;
    let hash = app.passwords.hash(&body.password).await?;
    let user = setup::redeem(&app.store, &app.settings.data, &body.token, &username, &display_name, &hash).await?;
    tracing::info!(user = %user.id, "the first administrator is there");
    signed_in(&app, sessions::Owner::User(&user.id)).await
}

/// A guest's way in.
#[derive(Debug, Deserialize, ToSchema)]
pub struct GuestSignIn {
    token: String,
    display_name: String,
}

/// Use a guest link; the session sees that one call only.
#[utoipa::path(post, path = "/session/guest", tag = "session", request_body = GuestSignIn,
    responses((status = 200, body = Session), (status = 401, body = ErrorBody), (status = 410, body = ErrorBody)))]
pub async fn guest_sign_in(State(app): State<Arc<App>>, Body(body): Body<GuestSignIn>) -> ApiResult<Response> {
    let name = names::display_name(&body.display_name, "Your name")?;
    let guest = guests::redeem(&app.store, &body.token, &name).await?;
    signed_in(&app, sessions::Owner::Guest(&guest)).await
}

/// All people.
#[derive(Debug, Serialize, ToSchema)]
pub struct Users {
    users: Vec<User>,
}

/// List people (admin).
#[utoipa::path(get, path = "/users", tag = "people", responses((status = 200, body = Users), (status = 403, body = ErrorBody)))]
pub async fn list_users(State(app): State<Arc<App>>, viewer: Viewer) -> ApiResult<Json<Users>> {
    viewer.check(Deed::ManagePeople)?;
    Ok(Json(Users { users: accounts::list(&app.store).await? }))
}

/// A new person.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewUser {
    username: String,
    display_name: String,
    password: String,
    roles: Vec<Role>,
}

/// Create a person (admin).
#[utoipa::path(post, path = "/users", tag = "people", request_body = NewUser,
    responses((status = 201, body = User), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create_user(State(app): State<Arc<App>>, viewer: Viewer, Body(body): Body<NewUser>) -> ApiResult<(StatusCode, Json<User>)> {
    viewer.check(Deed::ManagePeople)?;
    let username = names::username(&body.username)?;
    let display_name = names::display_name(&body.display_name, "The name")?;
    let hash = app.passwords.hash(&body.password).await?;
    let user = accounts::create(&app.store, &username, &display_name, &hash, &body.roles).await?;
    tracing::info!(by = %viewer.id, user = %user.id, roles = ?user.roles, "person created");
    Ok((StatusCode::CREATED, Json(user)))
}

/// What to change; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
pub struct UserChange {
    display_name: Option<String>,
    roles: Option<Vec<Role>>,
    password: Option<String>,
    disabled: Option<bool>,
}

/// Change a person (admin). A new password or disabling signs them out everywhere and takes them out of calls; without the
/// roles user and host they cannot stay in calls either.
#[utoipa::path(patch, path = "/users/{id}", tag = "people", request_body = UserChange,
    responses((status = 200, body = User), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn change_user(
    State(app): State<Arc<App>>,
    viewer: Viewer,
    Path(id): Path<String>,
    Body(body): Body<UserChange>,
) -> ApiResult<Json<User>> {
    viewer.check(Deed::ManagePeople)?;
    let new_password = body.password.is_some();
    let change = accounts::Change {
        display_name: body.display_name.map(|name| names::display_name(&name, "The name")).transpose()?,
        roles: body.roles,
        password_hash: match body.password {
            Some(password) => Some(app.passwords.hash(&password).await?),
            None => None,
        },
        disabled: body.disabled,
    };
    let user = accounts::change(&app.store, &id, change).await?;
    tracing::info!(by = %viewer.id, user = %user.id, roles = ?user.roles, disabled = user.disabled, "person changed");
    // What they may see has changed: their sockets come back with the new rights, or not at all.
    app.hub.close_person(&user.id);
    // Everywhere means the call too: whoever is in it on the old password has to leave it.
    if user.disabled || new_password || !Role::converse(&user.roles) {
        app.relay.close_person(&user.id);
    }
    Ok(Json(user))
}

/// A search by name.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub struct PeopleQuery {
    /// Part of a name.
    #[serde(default)]
    q: String,
}

/// People found.
#[derive(Debug, Serialize, ToSchema)]
pub struct People {
    people: Vec<Person>,
}

/// Find people by name.
#[utoipa::path(get, path = "/people", tag = "people", params(PeopleQuery), responses((status = 200, body = People)))]
pub async fn search_people(State(app): State<Arc<App>>, viewer: Viewer, Query(query): Query<PeopleQuery>) -> ApiResult<Json<People>> {
    viewer.check(Deed::Converse)?;
    Ok(Json(People { people: accounts::search(&app.store, &query.q).await? }))
}
