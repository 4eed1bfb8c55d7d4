//! Offer and answer: which sections, codecs, extensions and streams both ends agreed on.
//!
//! One negotiator per transport. [`Answerer`] serves a transport on which the client offers (LiveKit: publisher, and
//! the only one of a single-transport client, where it also carries what we send). [`Offerer`] serves the transport on
//! which we offer (LiveKit: subscriber), and with [`Offerer::mutual`] the one transport of a client that offers as well
//! (Mattermost). Both take and give SDP text and keep an [`Agreed`]: the transport's facts in
//! types, which is all that the rest of the core looks at. Neither knows ICE, DTLS or RTP; neither has a clock or a
//! random source (fresh credentials and SSRCs are handed in).
//!
//! An error changes nothing: the transport stays as it was agreed before.

mod agreed;
mod answerer;
mod codecs;
mod error;
mod mutual;
mod offered;
mod offerer;
mod payload_types;
mod sections;

pub use agreed::{
    Agreed, Codec, CodecKind, DataSection, DtlsRole, ExtensionKind, ExtensionMap, IceCredentials, LocalSettings, Outgoing, Receive,
    ReceiveStream, RemoteTransport, Section, SendStream,
};
pub use answerer::{Answer, Answerer, Fresh};
pub use codecs::matching;
pub use error::NegotiateError;
pub use offerer::{Offer, Offerer};

#[cfg(test)]
mod tests;
