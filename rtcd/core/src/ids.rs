//! Names of things, as types. None prints more than a short, loggable form.

use std::fmt;

/// Longest call, participant or track name accepted, bytes.
pub const NAME_LEN_MAX: usize = 128;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Parses a name: 1 to [`NAME_LEN_MAX`] bytes. `None` outside that bound.
            #[must_use]
            pub fn new(name: &str) -> Option<Self> {
                (1..=NAME_LEN_MAX).contains(&name.len()).then(|| Self(name.into()))
            }

            /// The whole name. Not for logs; [`fmt::Debug`] gives the short form.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // A call's tenant prefix would be all one sees.
                let name = self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name);
                f.write_str(name.get(..name.floor_char_boundary(8)).unwrap_or_default())
            }
        }
    };
}

name_type! {
    /// A call (LiveKit: room). Unguessable, chosen by the message server; carries the tenant as a prefix `tenant/`
    /// put there by the signalling edge.
    CallId
}
name_type! {
    /// A participant's session in a call (LiveKit: participant sid, `PA_…`). Chosen by the signalling edge.
    PeerId
}
name_type! {
    /// A published track (LiveKit: track sid, `TR_…`). Chosen by the signalling edge when it announces the track.
    TrackId
}
name_type! {
    /// An open media tap: the job's id.
    TapId
}

/// Which transport of a peer. With a single peer connection only [`Side::Publish`] exists and carries both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The client offers, we answer (LiveKit: publisher).
    Publish,
    /// We offer, the client answers (LiveKit: subscriber).
    Subscribe,
}

/// One of the data channels between a client and us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// Messages in order and for certain.
    Reliable,
    /// Messages that may get lost.
    Lossy,
    /// Packets of data tracks, which may get lost and overtake each other.
    DataTrack,
}

/// How datagrams reach a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// UDP, from our `local` socket to `remote`.
    Udp {
        /// Our address the datagram came to.
        local: std::net::SocketAddr,
        /// The other side's address.
        remote: std::net::SocketAddr,
    },
    /// One RFC 4571 connection, numbered by the shell; numbers are not used again.
    Tcp {
        /// The shell's number.
        connection: u64,
        /// The other side's address.
        remote: std::net::SocketAddr,
    },
}

/// Sound or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Picture: camera or screen.
    Video,
}

/// What a track shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
    /// Not said.
    Unknown,
}
