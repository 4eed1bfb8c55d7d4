//! LiveKit's `Egress`: recordings asked for over Twirp, carried by the offloader.
//!
//! This node keeps nothing of them but who vouches: an egress is a job of the offloader with an [`order`] inside, and what it looks like
//! ([`info`]) is read from its jobs, also after a restart. [`watch`] tells webhooks what changes. [`standing`]: rooms that record by
//! themselves.

mod bucket;
mod encoding;
pub mod info;
pub mod offloader;
pub mod order;
pub mod part;
pub mod path;
pub mod standing;
mod unified;
pub mod watch;

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::Response;
use livekit_protocol as lk;
use offloader_jobs::egress::{EgressKind, EgressOrder, Manifest};
use offloader_jobs::order::RecordParams;
use offloader_jobs::selection::Selection;

use self::info::{Pair, pairs};
use self::offloader::{Offloader, OffloaderFault};
use self::order::{Of, Request};
use self::path::Named;
use super::call_of;
use super::claims::Claims;
use super::twirp::{Code, Form, TwirpError};
use crate::admit::split_call_id;
use crate::config::Config;
use crate::node::Node;
use crate::signal::desk::moment;
use crate::signal::livekit::{NOTICE, new_sid};
use crate::signal::seam::{RoomAnswer, RoomFault, RoomRequest, Vouched};

/// Calls that make something else than a file of a room, a person or tracks.
const UNSUPPORTED: [(&str, &str); 2] = [
    ("StartWebEgress", "web pages are not recorded; use StartRoomCompositeEgress"),
    ("UpdateStream", "there are no streams to change; egress writes files"),
];

/// Calls that are done.
const METHODS: [&str; 8] = [
    "StartEgress",
    "StartRoomCompositeEgress",
    "StartParticipantEgress",
    "StartTrackCompositeEgress",
    "StartTrackEgress",
    "UpdateLayout",
    "StopEgress",
    "ListEgress",
];

/// What egress needs.
#[derive(Clone)]
pub struct Egress {
    /// Where jobs are.
    pub offloader: Offloader,
    /// When this node started, Unix ms: older egresses were told of before.
    pub since_ms: i64,
}

impl Egress {
    /// From the settings. `None`: there is no offloader.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let (Some(url), Some(token)) = (&config.offloader_url, &config.offloader_token) else { return Ok(None) };
        Ok(Some(Self { offloader: Offloader::new(url.as_str(), token)?, since_ms: moment().unix_ms }))
    }
}

/// `POST /twirp/livekit.Egress/{method}`.
///
/// # Errors
/// In the protocol's form.
pub async fn serve(node: &Arc<Node>, claims: &Claims, form: Form, method: &str, body: &Bytes) -> Result<Response, TwirpError> {
    if let Some((_, why)) = UNSUPPORTED.iter().find(|(name, _)| *name == method) {
        return Err(RoomFault::Unsupported(why).into());
    }
    let Some(egress) = &node.egress else {
        let why = "egress needs an offloader that records; set offloader.url and offloader.token";
        return Err(RoomFault::Unsupported(why).into());
    };
    if !METHODS.contains(&method) {
        return Err(super::room_service::no_route("livekit.Egress", method));
    }
    if !claims.grant().room_record {
        return Err(TwirpError::forbidden());
    }
    match method {
        "StartEgress" => begin::<lk::StartEgressRequest>(node, egress, claims, form, body).await,
        "StartRoomCompositeEgress" => begin::<lk::RoomCompositeEgressRequest>(node, egress, claims, form, body).await,
        "StartParticipantEgress" => begin::<lk::ParticipantEgressRequest>(node, egress, claims, form, body).await,
        "StartTrackCompositeEgress" => begin::<lk::TrackCompositeEgressRequest>(node, egress, claims, form, body).await,
        "StartTrackEgress" => begin::<lk::TrackEgressRequest>(node, egress, claims, form, body).await,
        "UpdateLayout" => Ok(form.write(&update_layout(egress, form.read(body)?).await?)),
        "StopEgress" => Ok(form.write(&stop(egress, form.read(body)?).await?)),
        _ => {
            let request: lk::ListEgressRequest = form.read(body)?;
            let wanted = |info: &lk::EgressInfo| {
                (request.room_name.is_empty() || info.room_name == request.room_name)
                    && (request.egress_id.is_empty() || info.egress_id == request.egress_id)
                    && (!request.active || !info::is_over(info.status()))
            };
            let items = all(egress).await?.iter().map(Pair::info).filter(wanted).collect();
            Ok(form.write(&lk::ListEgressResponse { items, ..lk::ListEgressResponse::default() }))
        }
    }
}

async fn begin<R: Request + prost::Message + serde::de::DeserializeOwned + Default>(
    node: &Node,
    egress: &Egress,
    claims: &Claims,
    form: Form,
    body: &Bytes,
) -> Result<Response, TwirpError> {
    let request: R = form.read(body)?;
    Ok(form.write(&start(node, egress, &claims.iss, new_sid("EG_"), &request).await?))
}

/// `key`: the API key that asks. Asking twice with one `id` is asking once.
async fn start(node: &Node, egress: &Egress, key: &str, id: String, request: &impl Request) -> Result<lk::EgressInfo, TwirpError> {
    let wanted = request.wanted()?;
    let call = call_of(&wanted.room).ok_or_else(|| RoomFault::Invalid("room name cannot be empty".to_owned()))?;
    let ask = |request| node.ask_room(&call, &wanted.room, request);
    let RoomAnswer::Participants(people) = ask(RoomRequest::Participants).await? else { return Err(no_answer()) };
    let part = part::find(&wanted.of, &people)?;
    let vouch = |whose| ask(RoomRequest::Vouch { egress: id.clone(), whose });
    let (whose, text) = match &part {
        None => (Vouched::Everybody, "everybody's consent"),
        Some(part) => (Vouched::Person(part.of.identity.clone()), "the consent of whoever is recorded"),
    };
    let RoomAnswer::Room(room) = vouch(whose).await? else { return Err(no_answer()) };
    let named = Named {
        kind: wanted.kind,
        room: &room,
        identity: part.as_ref().map(|part| part.of.identity.as_str()),
        track: part.as_ref().and_then(|part| part.track.as_ref()),
        form: wanted.form,
        unix_ms: moment().unix_ms,
    };
    let asked = match named.path(&wanted.path) {
        Some(path) => {
            let manifest = wanted.manifest.then(|| manifest(&id, &room, &wanted.of, &named));
            let params = RecordParams {
                call_id: split_call_id(&call).1.to_owned(),
                tenant: super::TENANT.to_owned(),
                channel_name: room.name.clone(),
                title: room.name.clone(),
                started_by: format!("API key {key}"),
                notice_version: NOTICE.to_owned(),
                notice_text: format!(
                    "Recorded by LiveKit's egress: the API key named as starter has the grant roomRecord and vouches for {text}."
                ),
                egress: Some(Box::new(EgressOrder {
                    id: id.clone(),
                    node: node.id.clone(),
                    room_id: room.sid.clone(),
                    room_name: room.name.clone(),
                    kind: wanted.kind,
                    request: wanted.request,
                    unified: wanted.unified,
                    form: wanted.form,
                    picture: wanted.picture,
                    path,
                    s3: wanted.s3,
                    manifest,
                })),
                selection: Selection { media: wanted.media, only: part.map(|part| part.of) },
                ..RecordParams::default()
            };
            egress.offloader.record(&params, &id).await.map_err(TwirpError::from)
        }
        None => Err(RoomFault::Unsupported("no file is made of a track of this codec; use StartTrackCompositeEgress").into()),
    };
    match asked {
        Ok(job) => {
            tracing::info!(?call, egress = id, job = job.id, "an egress begins");
            Pair::of(job).map(|pair| pair.info()).ok_or_else(|| TwirpError::new(Code::Unknown, "the offloader lost the order"))
        }
        Err(error) => {
            // Nobody records, so nobody is vouched for.
            let _ = vouch(Vouched::Nobody).await;
            Err(error)
        }
    }
}

/// What a manifest says of an egress when it begins.
fn manifest(id: &str, room: &lk::Room, of: &Of, named: &Named<'_>) -> Manifest {
    let track = named.track;
    let (audio, video) = if let Of::Tracks { audio, video } = of { (audio.clone(), video.clone()) } else { (None, None) };
    Manifest {
        egress_id: id.to_owned(),
        room_id: room.sid.clone(),
        room_name: room.name.clone(),
        started_at: named.unix_ms * 1_000_000,
        publisher_identity: named.identity.unwrap_or_default().to_owned(),
        track_id: track.map(|track| track.sid.clone()).unwrap_or_default(),
        track_kind: track.map(path::type_of).unwrap_or_default(),
        track_source: track.map(path::source_of).unwrap_or_default(),
        audio_track_id: audio.unwrap_or_default(),
        video_track_id: video.unwrap_or_default(),
        ..Manifest::default()
    }
}

/// Tells webhooks, where there are any, what becomes of an egress.
fn tell(node: &Node, name: &str, info: lk::EgressInfo) {
    let Some(webhooks) = &node.webhooks else { return };
    webhooks.tell(lk::WebhookEvent {
        event: name.to_owned(),
        id: new_sid("EV_"),
        created_at: moment().unix_ms / 1000,
        egress_info: Some(info),
        ..lk::WebhookEvent::default()
    });
}

fn no_answer() -> TwirpError {
    TwirpError::new(Code::Unknown, "the room gave no answer")
}

async fn update_layout(egress: &Egress, request: lk::UpdateLayoutRequest) -> Result<lk::EgressInfo, TwirpError> {
    // Looked at here: what it says of a wrong one is the same as when an egress begins.
    order::layout(&request.layout)?;
    let mut pair = under_way(egress, &request.egress_id, "updated").await?;
    if pair.order.kind != EgressKind::RoomComposite {
        return Err(RoomFault::Unsupported("only an egress of a whole room has a layout").into());
    }
    let layout = if request.layout.is_empty() { "grid" } else { &request.layout };
    pair.record = egress.offloader.lay_out(&pair.record.id, layout, moment().unix_ms).await?;
    Ok(pair.info())
}

async fn stop(egress: &Egress, request: lk::StopEgressRequest) -> Result<lk::EgressInfo, TwirpError> {
    let mut pair = under_way(egress, &request.egress_id, "stopped").await?;
    pair.record = egress.offloader.stop(&pair.record.id).await?;
    Ok(pair.info())
}

/// One that still records, so that it can be `changed`.
async fn under_way(egress: &Egress, id: &str, changed: &str) -> Result<Pair, TwirpError> {
    let not_found = || TwirpError::new(Code::NotFound, "egress does not exist");
    let pair = all(egress).await?.into_iter().find(|pair| pair.order.id == id).ok_or_else(not_found)?;
    let status = pair.info().status();
    if status != lk::EgressStatus::EgressStarting && status != lk::EgressStatus::EgressActive {
        let text = format!("egress with status {} cannot be {changed}", status.as_str_name());
        return Err(TwirpError::new(Code::FailedPrecondition, text));
    }
    Ok(pair)
}

async fn all(egress: &Egress) -> Result<Vec<Pair>, OffloaderFault> {
    Ok(pairs(egress.offloader.list().await?))
}
