//! People: accounts, sign-in, sessions, the first administrator, and the roles they hold.

pub mod accounts;
pub mod api;
pub mod names;
pub mod passwords;
pub mod sessions;
pub mod setup;
pub mod sign_in_limits;
