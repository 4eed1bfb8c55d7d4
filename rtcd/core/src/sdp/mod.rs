//! SDP as browsers write it: a strict, bounded parser and a writer over one model.
//!
//! Only what a WebRTC negotiation needs is kept ([`Description`]); other lines are checked for form and dropped. Values
//! that are echoed to other clients (mids, rids, msids) are bounded tokens, so that nobody can write a line into
//! somebody else's description. Work is linear in the text's length: every list has a bound in [`crate::limits`] and
//! payload types are found through an index.

mod model;
mod parse;
mod write;

pub use model::{
    Codec, Description, Direction, Extension, Fingerprint, HashFunction, Media, MediaKind, Msid, Rid, Setup, Simulcast, Ssrc, SsrcGroup,
    TransportAttributes,
};
pub use parse::{ParseError, Problem, parse};

#[cfg(test)]
mod tests;
