//! The `Tap` service: one stream per worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use conclave_proto::v1::tap_server::Tap;
use conclave_proto::v1::{self, TapItem, TapPurpose, TapRequest, tap_gap, tap_item, tap_request};
use rtcd_core::ids::{CallId, TapId, TrackId};
use rtcd_core::input::TapScope;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::part::Part;
use super::queue::{TapReceiver, channel};
use super::sealed::Sealed;
use super::token;
use crate::config::Secret;
use crate::directory::Watch;
use crate::limits::{CAPTION_LEN_MAX, CAPTIONS_PER_S, HELLO_TIMEOUT, TAP_BATCH, TAP_BATCH_PACKETS_MAX, TAP_CLOSED_WHY, TAPS_MAX};
use crate::node::Node;
use crate::shard::Command;
use crate::signal::bucket::Bucket;
use crate::signal::desk::{moment, short};
use crate::signal::seam::{AdapterInput, RoomAnswer, RoomFault, RoomRequest};

const DOES_NOT_READ: &str = "the tap was closed because it does not read; open it again";
const TOO_MANY_TAPS: &str = "the call has as many taps as one call may have; end a recording or captions of it, then open this one again";

/// The service.
#[derive(Clone)]
pub struct TapService {
    node: Arc<Node>,
    secret: Secret,
}

impl TapService {
    /// Over a running node, for tokens made with this key.
    #[must_use]
    pub fn new(node: Arc<Node>, secret: Secret) -> Self {
        Self { node, secret }
    }
}

#[tonic::async_trait]
impl Tap for TapService {
    type OpenStream = ReceiverStream<Result<TapItem, Status>>;

    async fn open(&self, request: Request<Streaming<TapRequest>>) -> Result<Response<Self::OpenStream>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no TapOpen within 5 s; send it as the first message"))??;
        let Some(TapRequest { body: Some(tap_request::Body::Open(open)) }) = first else {
            return Err(Status::invalid_argument("the first message has to be TapOpen"));
        };
        let purpose = open.purpose();
        let call = token::check(&self.secret, &open.token, &open.call_id, purpose).map_err(|reason| {
            self.node.metrics.taps_refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(tap = %short(&open.tap_id), reason, "a tap was refused");
            Status::unauthenticated(reason)
        })?;
        // A worker that comes back with its job's id must not be closed by what is left of its earlier stream.
        let number = self.node.metrics.taps_opened.fetch_add(1, Ordering::Relaxed);
        let tap =
            TapId::new(&format!("{number}-{}", open.tap_id)).ok_or_else(|| Status::invalid_argument("tap_id must have 1 to 100 bytes"))?;
        let slot = Slot::take(&self.node)
            .ok_or_else(|| Status::resource_exhausted("too many taps are open on this media node; try again later"))?;
        let watch = self
            .node
            .directory
            .watch(&call, moment().unix_ms)
            .ok_or_else(|| Status::not_found("there is no such call on this media node; it may have ended"))?;

        let part = open.part.map(Part::new).transpose().map_err(Status::invalid_argument)?;
        let scope =
            TapScope { consent_needed: purpose == TapPurpose::Record, audio: open.audio, video: open.video, screen_only: open.screen_only };
        let desk = self.node.desk_of(&call);
        let session = Session {
            node: Arc::clone(&self.node),
            call,
            tap,
            job: open.tap_id,
            purpose,
            desk,
            scope,
            part,
            sealed: Sealed::new(open.opens_encrypted && purpose == TapPurpose::Record),
            names: FxHashMap::default(),
            present: FxHashSet::default(),
            emptied: false,
            dropped: 0,
            _slot: slot,
        };
        let queue = session.open_in_core().await.ok_or_else(|| Status::unavailable("the node is ending"))?;
        tracing::info!(call = ?session.call, tap = ?session.tap, purpose = purpose.as_str_name(), "tap opened");
        let (sender, receiver) = mpsc::channel(8);
        tokio::spawn(session.run(watch, queue, incoming, sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn item_now(item: tap_item::Item) -> TapItem {
    TapItem { at_us: moment().unix_ms.saturating_mul(1000), item: Some(item) }
}

/// When a tap that the core has closed at `since` must have been closed for its reader's slowness.
async fn until_unexplained(since: Option<tokio::time::Instant>) {
    match since {
        Some(since) => tokio::time::sleep_until(since + TAP_CLOSED_WHY).await,
        None => std::future::pending().await,
    }
}

/// A place among [`TAPS_MAX`], given back when dropped.
struct Slot(Arc<Node>);

impl Slot {
    fn take(node: &Arc<Node>) -> Option<Self> {
        let open = node.metrics.taps_open.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(node));
        (usize::try_from(open).is_ok_and(|open| open < TAPS_MAX)).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.metrics.taps_open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open tap.
struct Session {
    node: Arc<Node>,
    call: CallId,
    tap: TapId,
    /// Its name outside.
    job: String,
    purpose: TapPurpose,
    desk: usize,
    scope: TapScope,
    /// What of the call its reader is given.
    part: Option<Part>,
    /// What of it is encrypted end to end.
    sealed: Sealed,
    /// People by the core's peer id, as already looked up.
    names: FxHashMap<String, (String, String)>,
    /// Identities of who is in the call, as far as this reader has been told.
    present: FxHashSet<String>,
    /// Everybody has left since the core's tap was opened: then the core has closed it.
    emptied: bool,
    /// Packets this reader lost.
    dropped: u64,
    _slot: Slot,
}

impl Session {
    async fn run(
        mut self,
        watch: Watch,
        mut queue: TapReceiver,
        mut incoming: Streaming<TapRequest>,
        sender: mpsc::Sender<Result<TapItem, Status>>,
    ) {
        self.tell_state(true).await;
        let Watch { call_started_at_us, now, mut changes } = watch;
        now.iter().for_each(|item| self.note_presence(item));
        self.emptied = self.present.is_empty();
        let opened = v1::TapOpened { media_node_id: self.node.id.clone(), call_started_at_us };
        let mut open = self.send(&sender, [item_now(tap_item::Item::Opened(opened))]).await;
        self.look_for_part().await;
        let now: Vec<TapItem> = now.into_iter().filter_map(|item| if self.wants(&item) { self.with_key(item) } else { None }).collect();
        open &= self.send(&sender, now).await;
        let mut captions = Bucket::new(CAPTIONS_PER_S, CAPTIONS_PER_S * 2.0, Instant::now());
        // The core has closed its tap. Why, the desk tells, perhaps a moment later.
        let mut closed: Option<tokio::time::Instant> = None;
        let mut given = false;
        while open {
            if self.part.as_ref().is_some_and(Part::is_over) {
                let rest = self.gather(&mut queue, None);
                self.send(&sender, rest).await;
                self.send(&sender, [item_now(tap_item::Item::PartEnded(v1::TapPartEnded {}))]).await;
                break;
            }
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(item) => {
                        let over = matches!(item.item, Some(tap_item::Item::CallEnded(_)));
                        self.note_presence(&item);
                        // The core ends a call with its last peer; who comes back within the departure timeout is in the same one.
                        if closed.is_some() && self.emptied && !self.present.is_empty() {
                            let Some(reopened) = self.open_in_core().await else { break };
                            (queue, closed, self.emptied) = (reopened, None, false);
                        }
                        if over {
                            // What the shard still had for us goes out first.
                            let rest = self.gather(&mut queue, None);
                            self.send(&sender, rest).await;
                        }
                        let item = Some(item).filter(|item| self.wants(item)).and_then(|item| self.with_key(item));
                        open = self.send(&sender, item).await && !over;
                    }
                    Err(RecvError::Lagged(_)) => {
                        let _ = sender.send(Err(Status::resource_exhausted("the tap does not read; open it again"))).await;
                        break;
                    }
                    Err(RecvError::Closed) => break,
                },
                request = incoming.message() => match request {
                    Ok(Some(TapRequest { body: Some(body) })) => open = self.handle(body, &mut captions, &sender).await,
                    Ok(Some(TapRequest { body: None })) => {}
                    Ok(None) | Err(_) => break,
                },
                item = queue.next(), if closed.is_none() => match item {
                    Some(item) => {
                        given = true;
                        tokio::time::sleep(TAP_BATCH).await;
                        let batch = self.gather(&mut queue, Some(item));
                        open = self.send(&sender, batch).await;
                    }
                    None if self.emptied && !self.present.is_empty() => {
                        let Some(reopened) = self.open_in_core().await else { break };
                        (queue, self.emptied) = (reopened, false);
                    }
                    None => closed = Some(tokio::time::Instant::now()),
                },
                () = until_unexplained(closed), if !self.emptied => {
                    // Whom nothing was ever given did not fall behind with it: there was no place for it.
                    let why = if given { DOES_NOT_READ } else { TOO_MANY_TAPS };
                    let _ = sender.send(Err(Status::resource_exhausted(why))).await;
                    break;
                }
            }
        }
        self.node.command_call(&self.call, Command::TapClose { tap: self.tap.clone() }).await;
        tracing::info!(call = ?self.call, tap = ?self.tap, dropped = self.dropped, "tap closed");
        self.tell_state(false).await;
    }

    /// Opens (or opens again) the tap on the shards of the call. `None`: the node is ending.
    async fn open_in_core(&self) -> Option<TapReceiver> {
        let (sink, queue) = channel();
        let command = Command::TapOpen { call: self.call.clone(), tap: self.tap.clone(), scope: self.scope, sink };
        self.node.command_call(&self.call, command).await.then_some(queue)
    }

    fn note_presence(&mut self, item: &TapItem) {
        let Some(tap_item::Item::Participant(person)) = &item.item else { return };
        if person.present {
            self.present.insert(person.identity.clone());
        } else {
            self.present.remove(&person.identity);
            self.emptied |= self.present.is_empty();
        }
    }

    /// A worker that comes back for a part may find that it ended meanwhile: nothing would ever say so.
    async fn look_for_part(&mut self) {
        let Some(part) = &mut self.part else { return };
        let request = RoomRequest::Participant(part.identity().to_owned());
        let there = match self.node.ask_room(&self.call, crate::admit::split_call_id(&self.call).1, request).await {
            Ok(RoomAnswer::Participant(person)) => {
                let named = part.track_sids();
                named.is_empty() || person.tracks.iter().any(|track| named.contains(&track.sid))
            }
            Err(RoomFault::NoRoom | RoomFault::NoParticipant) => false,
            // Not known: what comes will tell.
            Ok(_) | Err(_) => true,
        };
        if !there {
            part.handle_absence();
        }
    }

    /// Whether the reader is given an item.
    fn wants(&mut self, item: &TapItem) -> bool {
        let given = self.sealed.handle_item(item);
        self.part.as_mut().is_none_or(|part| part.handle_item(item)) && given
    }

    /// Keys lie in one place only, from where they are given out.
    fn with_key(&self, item: TapItem) -> Option<TapItem> {
        match &item.item {
            Some(tap_item::Item::MediaKey(told)) => {
                let key = self.node.directory.media_key(&self.call, told)?;
                Some(TapItem { item: Some(tap_item::Item::MediaKey(key)), ..item })
            }
            _ => Some(item),
        }
    }

    /// Everything that waits, packets of one track joined into one item as far as order within the track allows.
    fn gather(&mut self, queue: &mut TapReceiver, first: Option<TapItem>) -> Vec<TapItem> {
        let mut batch: Vec<TapItem> = Vec::new();
        // Track → index of its open packets item.
        let mut joining: FxHashMap<String, usize> = FxHashMap::default();
        let mut next = first.or_else(|| queue.try_next());
        let mut packets_taken = 0;
        while let Some(mut item) = next {
            if let Some(tap_item::Item::Track(track)) = &mut item.item {
                self.name(track);
            }
            let wanted = self.wants(&item);
            match &mut item.item {
                Some(tap_item::Item::Packets(packets)) => {
                    packets_taken += packets.packets.len();
                    let open = joining.get(&packets.track_sid).and_then(|index| batch.get_mut(*index));
                    if !wanted {
                        // Another's: its place is taken by nothing.
                    } else if let Some(TapItem { item: Some(tap_item::Item::Packets(open)), .. }) = open
                        && open.packets.len() < TAP_BATCH_PACKETS_MAX
                    {
                        open.packets.append(&mut packets.packets);
                    } else {
                        joining.insert(packets.track_sid.clone(), batch.len());
                        batch.push(item);
                    }
                }
                other => {
                    // Whatever it is about, nothing passes it.
                    joining.clear();
                    if let Some(tap_item::Item::Gap(gap)) = other
                        && gap.reason() == tap_gap::Reason::Reader
                    {
                        self.dropped += gap.packets;
                    }
                    if wanted {
                        batch.push(item);
                    }
                }
            }
            // One pass never holds more than a reader may be behind anyway.
            next = if packets_taken < TAP_BATCH_PACKETS_MAX * 16 { queue.try_next() } else { None };
        }
        batch
    }

    /// The shard knows peers only; people have names.
    fn name(&mut self, track: &mut v1::TapTrack) {
        track.set_encryption(self.node.directory.encryption(&self.call, &track.identity, &track.track_sid));
        let known = self.names.get(&track.identity).cloned().or_else(|| self.node.directory.person(&self.call, &track.identity));
        if let Some((identity, display_name)) = known {
            self.names.insert(track.identity.clone(), (identity.clone(), display_name.clone()));
            track.identity = identity;
            track.display_name = display_name;
        }
    }

    async fn send(&self, sender: &mpsc::Sender<Result<TapItem, Status>>, items: impl IntoIterator<Item = TapItem>) -> bool {
        for item in items {
            if sender.send(Ok(item)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn handle(&self, body: tap_request::Body, captions: &mut Bucket, sender: &mpsc::Sender<Result<TapItem, Status>>) -> bool {
        match body {
            tap_request::Body::Open(_) => {
                let _ = sender.send(Err(Status::invalid_argument("TapOpen comes once"))).await;
                false
            }
            tap_request::Body::Close(_) => false,
            tap_request::Body::KeyFrame(wanted) => {
                if let Some(track) = TrackId::new(&wanted.track_sid) {
                    self.node.command_call(&self.call, Command::TapKeyFrame { tap: self.tap.clone(), track }).await;
                }
                true
            }
            tap_request::Body::Caption(caption) => self.handle_caption(caption, captions, sender).await,
        }
    }

    async fn handle_caption(
        &self,
        mut caption: v1::Caption,
        captions: &mut Bucket,
        sender: &mpsc::Sender<Result<TapItem, Status>>,
    ) -> bool {
        if self.purpose != TapPurpose::Caption {
            let _ = sender.send(Err(Status::permission_denied("only a tap opened for captions may send captions"))).await;
            return false;
        }
        if caption.committed.len() + caption.pending.len() > CAPTION_LEN_MAX {
            let _ = sender.send(Err(Status::invalid_argument("a caption line is too long"))).await;
            return false;
        }
        if !captions.take(Instant::now()) {
            // Pending text is replaced by the next line anyway; final lines are rare enough never to be rationed.
            if !caption.r#final {
                self.node.metrics.captions_rationed.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        }
        self.node.metrics.observe_caption(&caption);
        // Of its own call, whatever it says.
        crate::admit::split_call_id(&self.call).1.clone_into(&mut caption.call_id);
        self.node.tell(self.desk, AdapterInput::Caption { call: self.call.clone(), caption }).await;
        true
    }

    async fn tell_state(&self, open: bool) {
        let state = v1::TapState {
            tap_id: self.job.clone(),
            purpose: match self.purpose {
                TapPurpose::Record => "record",
                TapPurpose::Caption => "caption",
                TapPurpose::Unspecified => "",
            }
            .to_owned(),
            open,
            dropped: self.dropped,
        };
        self.node.tell(self.desk, AdapterInput::TapState { call: self.call.clone(), state }).await;
    }
}
