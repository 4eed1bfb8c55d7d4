//! One connection to a LiveKit room that only receives: its signalling, and the peer connection that the server offers.

use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as lk;
use lk::signal_request::Message as Request;
use lk::signal_response::Message as Response;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::transport::RTCDtlsRole;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::peer_connection::RTCIceCandidateInit;

use super::super::description;
use super::super::limits::{ROOM_PINGS, ROOM_PINGS_MAX, ROOM_WITHIN};
use super::super::local_for;
use super::super::ticket::Ticket;
use crate::ClientError;
use crate::connection::{Connection, ConnectionEvent};
use crate::dial::DialError;
use crate::socket::{self, Incoming};

/// Why there is no way into the room.
pub(super) enum NoWay {
    /// It will not be another one.
    Refused(String),
    /// It may be.
    NotNow(String),
}

/// See the module.
pub(super) struct Room {
    requests: mpsc::Sender<lk::SignalRequest>,
    incoming: Incoming,
    connection: Connection,
    from_connection: mpsc::UnboundedReceiver<ConnectionEvent>,
    /// The last offer: what formats its sections have.
    pub(super) sections: Vec<description::Incoming>,
    /// What the server wants to hear, and how long it may be silent.
    pub(super) pings: (Duration, Duration),
    /// The server offers as soon as we are in.
    pub(super) offers_at_once: bool,
}

/// What comes from a room.
pub(super) enum Happened {
    Signal(Result<Option<Box<Response>>, ClientError>),
    Connection(ConnectionEvent),
}

impl Room {
    /// Enters; with what the server says first.
    pub(super) async fn enter(ticket: &Ticket, tls: &Arc<ClientConfig>) -> Result<(Self, lk::JoinResponse), NoWay> {
        let late = |_| NoWay::NotNow(format!("LiveKit at {} did not answer within {} s", ticket.url, ROOM_WITHIN.as_secs()));
        timeout(ROOM_WITHIN, Self::entered(ticket, tls)).await.map_err(late)?
    }

    async fn entered(ticket: &Ticket, tls: &Arc<ClientConfig>) -> Result<(Self, lk::JoinResponse), NoWay> {
        let url = &ticket.url;
        let (requests, mut incoming) = socket::open(url, &ticket.token, Some(tls)).await.map_err(|error| no_way(url, error))?;
        let lost = |error: ClientError| NoWay::NotNow(format!("LiveKit at {url}: {error}"));
        let join = match socket::next(&mut incoming).await.map_err(lost)? {
            Some(Response::Join(join)) => join,
            Some(Response::Leave(leave)) => {
                return Err(NoWay::NotNow(format!("LiveKit at {url} sent us away: {}", leave.reason().as_str_name())));
            }
            Some(_) => return Err(NoWay::NotNow(format!("LiveKit at {url} began with something else than a JoinResponse"))),
            None => return Err(NoWay::NotNow(format!("LiveKit at {url} closed the connection at once"))),
        };
        let (connection, from_connection) = listener(local_for(url)).await.map_err(|error| NoWay::Refused(error.to_string()))?;
        let said = |seconds: i32, usual: Duration| match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Duration::from_secs(seconds).min(ROOM_PINGS_MAX),
            Ok(0) | Err(_) => usual,
        };
        let pings = (said(join.ping_interval, ROOM_PINGS.0), said(join.ping_timeout, ROOM_PINGS.1));
        let offers_at_once = join.subscriber_primary;
        let room = Self { requests, incoming, connection, from_connection, sections: Vec::new(), pings, offers_at_once };
        Ok((room, join))
    }

    /// The next thing that happens. May be given up and asked again.
    pub(super) async fn next(&mut self) -> Happened {
        tokio::select! {
            signal = socket::next(&mut self.incoming) => Happened::Signal(signal.map(|message| message.map(Box::new))),
            Some(event) = self.from_connection.recv() => Happened::Connection(event),
        }
    }

    /// Queues a request. False: the server reads no more.
    #[must_use]
    pub(super) fn ask(&self, message: Request) -> bool {
        self.requests.try_send(lk::SignalRequest { message: Some(message) }).is_ok()
    }

    /// Answers the server's offer. False as with [`Room::ask`].
    pub(super) async fn offered(&mut self, offer: lk::SessionDescription) -> Result<bool, ClientError> {
        self.sections = description::incoming(&offer.sdp);
        let sdp = self.connection.answer(description::without_stops(&offer.sdp)).await?;
        let answer = lk::SessionDescription { r#type: "answer".to_owned(), sdp, id: offer.id, ..Default::default() };
        Ok(self.ask(Request::Answer(answer)))
    }

    /// A candidate of the server's.
    pub(super) async fn trickled(&mut self, trickle: lk::TrickleRequest) {
        // The other connection would be for sending.
        if trickle.target() != lk::SignalTarget::Subscriber {
            return;
        }
        match serde_json::from_str::<RTCIceCandidateInit>(&trickle.candidate_init) {
            Ok(candidate) => self.connection.add_candidate(candidate).await,
            Err(error) => tracing::debug!(%error, "a candidate of LiveKit is passed over"),
        }
    }

    /// Closes what there is, without a word.
    pub(super) async fn close(self) {
        if let Err(error) = self.connection.inner().close().await {
            tracing::debug!(%error, "the peer connection did not close");
        }
    }
}

/// A peer connection that takes whatever format people send in.
async fn listener(local: &str) -> Result<(Connection, mpsc::UnboundedReceiver<ConnectionEvent>), ClientError> {
    let mut media = MediaEngine::default();
    media.register_default_codecs()?;
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(RTCDtlsRole::Client)
        // Several bots share a machine, and LiveKit has no names of that kind.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .build();
    Connection::with(local, media, settings).await
}

fn no_way(url: &str, error: DialError) -> NoWay {
    let where_from =
        "it is LiveKitURL of the Calls plugin; MM_CALLS_RECORDER_LIVEKIT_URL on the Mattermost server gives its jobs another one";
    match error {
        DialError::Address(why) => NoWay::Refused(format!("LiveKit's address {url:?} cannot work: {why} ({where_from})")),
        DialError::Unreachable(why) => NoWay::NotNow(format!("LiveKit at {url} cannot be reached: {why} ({where_from})")),
        DialError::Refused { status: status @ (401 | 403), message } => NoWay::Refused(format!(
            "LiveKit at {url} does not take the Calls plugin's token ({status} {message}): are LiveKitAPIKey and LiveKitAPISecret of the plugin \
             a pair of that server's keys, and do the clocks agree?"
        )),
        DialError::Refused { status: status @ (404 | 405), message } => {
            NoWay::Refused(format!("at {url} nobody speaks LiveKit's protocol ({status} {message}): {where_from}"))
        }
        DialError::Refused { status, message } => NoWay::NotNow(format!("LiveKit at {url} refused with {status}: {message}")),
    }
}
