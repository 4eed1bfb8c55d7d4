//! Why an offer or answer could not be used.

use crate::sdp::ParseError;

/// Whatever the variant: the transport stays as it was agreed before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// The text is no session description.
    #[error("{0}")]
    Sdp(#[from] ParseError),
    /// Something every WebRTC description carries is not there.
    #[error("the description has no {0}")]
    Missing(&'static str),
    /// Something that this server cannot do; the text says what to send instead.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Sections were removed, reordered or changed their kind, or an answer does not fit its offer.
    #[error("section {section}: {problem}")]
    Section {
        /// Index of the `m=` line, from 0.
        section: usize,
        /// What does not fit.
        problem: &'static str,
    },
    /// An answer to an offer that is not, or no longer, outstanding. Harmless: nothing has to be told to anybody.
    #[error("the answer is for offer {answered}, outstanding is {outstanding:?}")]
    Stale {
        /// Number of the answer.
        answered: u32,
        /// Number we wait for.
        outstanding: Option<u32>,
    },
    /// The client's offer crossed ours. It is the polite one: it rolls back, answers ours, and offers again (RFC 8829 4.1.8.2).
    #[error("an offer of this server is outstanding; answer it, then offer again")]
    Glare,
}
