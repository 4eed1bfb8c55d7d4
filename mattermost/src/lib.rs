//! Accounts of Mattermost installations, as Mattermost's rtcd and calls-offloader both have them: an installation registers a key,
//! shows it or a token with every request, and can be removed again. Here are the rules, the limiter, the HTTP routes with Go's way of
//! reading bodies, and the folder of keys that both of them leave behind; what is kept where is each program's own ([`Clients`]).

pub mod accounts;
pub mod answer;
pub mod body;
pub mod clients;
pub mod key_folder;
pub mod limiter;
pub mod routes;
pub mod tokens;

pub use accounts::{AccountSettings, Accounts, Identity, Refusal};
pub use clients::{Added, Clients};
