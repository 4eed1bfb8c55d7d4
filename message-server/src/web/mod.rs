//! HTTP around the API: routes, origins, addresses, headers, the pages' files, listeners.

pub mod archive;
pub mod assets;
pub mod body;
pub mod deeds;
pub mod departed;
pub mod diagnosis;
pub mod headers;
pub mod health;
pub mod listen;
pub mod openapi;
pub mod ops;
pub mod origin;
pub mod router;
pub mod source;
