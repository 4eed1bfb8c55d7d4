//! [`Core`]: takes inputs apart, wakes timers, hands out outputs. What is done with them stands in the files named after it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest;
use rustc_hash::FxHasher;

use crate::arena::Arena;
use crate::call::{Call, CallKey};
use crate::config::CoreConfig;
use crate::counters::{Count, Counters};
use crate::ids::{CallId, Link, PeerId, TapId, TrackId};
use crate::input::Input;
use crate::limits::{CANDIDATES_MAX, DATAGRAM_LEN_MAX, SDP_LEN_MAX};
use crate::negotiate::LocalSettings;
use crate::outbox::{Notice, Outbox};
use crate::output::{EndReason, Event, Output, Step};
use crate::peer::dtls::DtlsSettings;
use crate::peer::{Peer, PeerKey, Transport, TransportKey};
use crate::random::Random;
use crate::rtp::abs_send_time;
use crate::subscription::Subscription;
use crate::tap::{Tap, TapKey};
use crate::timers::{Timer, Timers};
use crate::track::{Layer, Track, TrackKey};

/// Bytes written before they are given out: within a level-2 cache, with room for the kernel's own work.
pub(crate) const LOT_BYTES: usize = 128 * 1024;

/// Bytes for other shards that may wait: they begin to work on the first while this one goes on.
const PARCEL_BYTES: usize = 64 * 1024;

/// The core. See the crate's documentation.
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) local: Arc<LocalSettings>,
    pub(crate) dtls: DtlsSettings,
    pub(crate) calls: Arena<Call>,
    pub(crate) peers: Arena<Peer>,
    pub(crate) transports: Arena<Transport>,
    pub(crate) tracks: Arena<Track>,
    pub(crate) layers: Arena<Layer>,
    pub(crate) subscriptions: Arena<Subscription>,
    pub(crate) taps: Arena<Tap>,
    pub(crate) call_by_id: HashMap<CallId, CallKey>,
    pub(crate) peer_by_id: HashMap<PeerId, PeerKey>,
    pub(crate) track_by_id: HashMap<TrackId, TrackKey>,
    /// Those that stand in for tracks of other shards, by shard and the name they have there.
    pub(crate) track_by_origin: HashMap<(u8, u64), TrackKey, BuildHasherDefault<FxHasher>>,
    pub(crate) tap_by_id: HashMap<TapId, TapKey>,
    /// Addresses that passed a check. Only proved ones are here, so nobody can crowd it with chosen ones.
    pub(crate) links: HashMap<Link, TransportKey, BuildHasherDefault<FxHasher>>,
    pub(crate) timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) random: Random,
    pub(crate) counters: Counters,
    /// Viewers with packets to write.
    pub(crate) dirty: Vec<TransportKey>,
    /// Kept for its memory.
    pub(crate) scratch: Vec<u16>,
    /// What the last [`Core::poll`] lent out.
    lent: Option<Notice>,
    planted: Option<(PeerId, Planted)>,
}

/// Where a bug that a test plants strikes. Release builds have none.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// With the peer's next packet.
    Packet,
    /// When something is written for the peer.
    Sending,
    /// When its reports are due.
    Timer,
    /// With its next packet, and again when it is ended for that.
    Ending,
    /// In work of the call, which is nobody's.
    Call,
}

/// Why a core cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// DTLS refuses its configuration.
    #[error("DTLS cannot be configured: was the program built without its crypto provider?")]
    Dtls,
}

impl Core {
    /// A core without calls.
    ///
    /// # Panics
    /// When DTLS cannot be configured; [`Core::try_new`] answers instead.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        #[allow(clippy::expect_used, reason = "at start, before anybody depends on it; only a broken build gets here")]
        Self::try_new(config).expect("DTLS configuration")
    }

    /// A core without calls.
    ///
    /// # Errors
    /// [`CoreError`].
    pub fn try_new(mut config: CoreConfig) -> Result<Self, CoreError> {
        config.udp_candidates.truncate(CANDIDATES_MAX);
        config.tcp_candidates.truncate(CANDIDATES_MAX);
        let mut fingerprint = [0; 32];
        for (place, byte) in fingerprint.iter_mut().zip(digest::digest(&digest::SHA256, &config.certificate.certificate_der).as_ref()) {
            *place = *byte;
        }
        let local = LocalSettings { fingerprint, udp: config.udp_candidates.clone(), tcp: config.tcp_candidates.clone() };
        let dtls = DtlsSettings::new(&config).ok_or(CoreError::Dtls)?;
        Ok(Self {
            random: Random::new(config.seed),
            local: Arc::new(local),
            dtls,
            config,
            calls: Arena::new(),
            peers: Arena::new(),
            transports: Arena::new(),
            tracks: Arena::new(),
            layers: Arena::new(),
            subscriptions: Arena::new(),
            taps: Arena::new(),
            call_by_id: HashMap::new(),
            peer_by_id: HashMap::new(),
            track_by_id: HashMap::new(),
            track_by_origin: HashMap::default(),
            tap_by_id: HashMap::new(),
            links: HashMap::default(),
            timers: Timers::new(),
            outbox: Outbox::new(),
            counters: Counters::new(),
            dirty: Vec::new(),
            scratch: Vec::new(),
            lent: None,
            planted: None,
        })
    }

    /// Takes one input. Any number may follow each other; then poll to rest.
    #[allow(clippy::wildcard_enum_match_arm, reason = "`told` names them all")]
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            // Each finds out by itself whose work it is.
            Input::Datagram { link, bytes } => self.datagram(now, link, bytes),
            Input::Timeout => self.contain(now, |_| None, |core| core.wake(now)),
            Input::Join(join) => {
                let peer = join.peer.clone();
                self.contain(now, |core| core.peer_by_id.get(&peer).copied(), |core| core.join(now, &join));
            }
            // What is no single peer's work costs only itself.
            other => self.contain(now, |_| None, |core| core.told(now, other)),
        }
    }

    fn told(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { .. } | Input::Timeout | Input::Join(_) => {}
            Input::LinkClosed { link } => match self.links.get(&link).copied() {
                Some(key) => self.guard(now, key, |core| core.link_closed(now, link)),
                None => self.link_closed(now, link),
            },
            Input::Leave { peer } => self.with_peer(now, &peer, |core, key| core.end_peer(now, key, EndReason::Left)),
            Input::Offer { peer, sdp, id } if sdp.len() <= SDP_LEN_MAX => {
                self.with_peer(now, &peer, |core, key| core.offer(now, key, sdp, id))
            }
            Input::Answer { peer, sdp, id } if sdp.len() <= SDP_LEN_MAX => {
                self.with_peer(now, &peer, |core, key| core.answer(now, key, sdp, id))
            }
            Input::Offer { peer, .. } => self.too_long(peer, crate::ids::Side::Publish),
            Input::Answer { peer, .. } => self.too_long(peer, crate::ids::Side::Subscribe),
            // Nothing is ever sent to an address that a client names; checks prove addresses.
            Input::Candidate { peer, side, .. } => self.with_peer(now, &peer, |core, key| core.candidates(key, side, 1)),
            Input::RestartIce { peer } => self.with_peer(now, &peer, |core, key| core.restart_ice(key)),
            Input::HoldOffers { peer, held } => self.with_peer(now, &peer, |core, key| core.hold_offers(key, held)),
            Input::AwaitDelivery { peer } => self.with_peer(now, &peer, |core, key| core.await_delivery(key)),
            Input::Reoffer { peer } => self.with_peer(now, &peer, |core, key| core.reoffer(key)),
            Input::Publish(publish) => self.with_peer(now, &publish.peer, |core, key| core.publish(now, key, &publish)),
            Input::Unpublish { peer, track } => self.with_own_track(now, &peer, &track, |core, key| core.end_track(now, key)),
            Input::Mute { peer, track, muted } => self.with_own_track(now, &peer, &track, |core, key| core.mute(now, key, muted)),
            Input::Subscribe { peer, track, wanted } => self.with_peer_and_track(now, &peer, &track, |core, peer, track| {
                if wanted {
                    core.accept(now, peer, track);
                } else {
                    core.decline(now, peer, track);
                }
            }),
            Input::TrackSettings { peer, track, settings } => {
                self.with_peer_and_track(now, &peer, &track, |core, peer, track| core.track_settings(now, peer, track, settings));
            }
            Input::SendData { call, to, channel, text, payload } => match self.call_by_id.get(&call) {
                Some(key) => self.send_data(now, *key, to, channel, text, payload),
                None => self.counters.one(Count::UnknownName),
            },
            Input::DataRoute { peer, publisher_handle, handle, subscribers } => {
                self.with_peer(now, &peer, |core, key| core.route_data(key, publisher_handle, handle, subscribers));
            }
            Input::Consent { peer, granted } => self.with_peer(now, &peer, |core, key| core.consent(now, key, granted)),
            Input::TapOpen { call, tap, scope } => self.open_tap(now, &call, &tap, scope),
            Input::TapClose { tap } => match self.tap_by_id.get(&tap) {
                Some(key) => self.close_tap(*key),
                None => self.counters.one(Count::UnknownName),
            },
            Input::TapKeyFrame { tap, track } => match (self.tap_by_id.get(&tap), self.track_by_id.get(&track)) {
                (Some(tap), Some(track)) => self.tap_key_frame(now, *tap, *track),
                _ => self.counters.one(Count::UnknownName),
            },
            Input::Adopt(adoption) => self.adopt_track(now, &adoption),
            Input::Disown { track } => self.disown_track(now, &track),
            Input::AdoptedMuted { track, muted } => match self.track_by_id.get(&track).copied() {
                Some(key) if self.tracks.get(key).is_some_and(|track| track.origin.is_some()) => self.mute(now, key, muted),
                Some(_) | None => self.counters.one(Count::UnknownName),
            },
            Input::Parcel { from, parcel } => self.receive_parcel(now, from, parcel),
            Input::RelayRequest { from, request } => self.relay_requested(now, from, &request),
            Input::EndCall { call } => match self.call_by_id.get(&call) {
                Some(key) => self.end_call(now, *key),
                None => self.counters.one(Count::UnknownName),
            },
            Input::Report { token, diagnose } => {
                let report = Box::new(self.report(now, diagnose));
                self.outbox.notice(Notice::Report { token, report });
            }
        }
    }

    /// Whether somebody has proved to be at the other end of this link.
    #[inline]
    #[must_use]
    pub fn knows(&self, link: Link) -> bool {
        self.links.contains_key(&link)
    }

    /// The addresses at which a peer has proved to be.
    pub fn links_of(&self, peer: &PeerId) -> impl Iterator<Item = Link> + '_ {
        let peer = self.peer_by_id.get(peer).and_then(|key| self.peers.get(*key));
        let transports = peer.into_iter().flat_map(Peer::transport_keys).filter_map(|key| self.transports.get(key));
        transports.flat_map(|transport| transport.links.iter().copied())
    }

    /// True when datagrams should not be added without polling first: more would only make the next poll longer.
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        self.outbox.used() > 4 * 1024 * 1024 || self.outbox.parcels.used() > PARCEL_BYTES || self.dirty.len() > 4096
    }

    /// Whether [`Input::Timeout`] would do something now. Timers without hurry are due before [`Output::Timeout`] asks for a
    /// wake-up for them: whoever is awake anyway spares it.
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.timers.is_due(now)
    }

    /// The next output. Poll until [`Output::Timeout`].
    pub fn poll(&mut self, now: Instant) -> Output<'_> {
        // Other shards begin with theirs while we do ours.
        if !self.outbox.parcels.is_empty() {
            return match self.outbox.parcels.lend() {
                Some((shard, parcel)) => {
                    self.counters.add(Count::PacketsRelayedOut, parcel.packets() as u64);
                    Output::Parcel { shard, parcel }
                }
                None => Output::Timeout(Some(now)),
            };
        }
        // Written first, sent then: neither pushes the other's code and data out of the caches packet by packet.
        if !self.dirty.is_empty() {
            let send_time = abs_send_time(now.saturating_duration_since(self.config.epoch.0));
            while self.outbox.used() < LOT_BYTES
                && let Some(key) = self.dirty.pop()
            {
                self.guard(now, key, |core| {
                    core.trip(key, Planted::Sending);
                    core.flush(now, send_time, key);
                });
            }
        }
        if self.outbox.used() > 0 {
            return Output::Transmits(self.outbox.lend());
        }
        loop {
            self.lent = self.outbox.next_notice();
            let nothing = match &self.lent {
                // A tap's item may have nothing left to say.
                Some(Notice::Tap { delivery, .. }) => catch_unwind(AssertUnwindSafe(|| self.tap_item(delivery).is_none())),
                Some(_) => Ok(false),
                None => return Output::Timeout(self.timers.next()),
            };
            match nothing {
                Ok(false) => break,
                Ok(true) => {}
                Err(_) => self.counters.one(Count::Panics),
            }
        }
        match &self.lent {
            Some(Notice::Signal { peer, signal }) => Output::Signal { peer: peer.clone(), signal: signal.clone() },
            Some(Notice::Event { call, event }) => Output::Event { call: call.clone(), event: event.clone() },
            Some(Notice::Data { call, peer, channel, text, payload }) => {
                Output::Data { call: call.clone(), peer: peer.clone(), channel: *channel, text: *text, payload }
            }
            Some(Notice::DataTrack { call, to, packet }) => {
                Output::DataTrack { call: call.clone(), to: Arc::clone(to), packet: packet.clone() }
            }
            Some(Notice::TapClosed { tap }) => Output::TapClosed { tap: tap.clone() },
            Some(Notice::Origin(origin)) => Output::Origin(Arc::clone(origin)),
            Some(Notice::RelayRequest { shard, request }) => Output::RelayRequest { shard: *shard, request: *request },
            Some(Notice::Report { token, report }) => Output::Report { token: *token, report: report.clone() },
            Some(Notice::Tap { tap, delivery }) => match self.tap_item(delivery) {
                Some(item) => Output::Tap { tap: tap.clone(), item },
                None => Output::Timeout(Some(now)),
            },
            None => Output::Timeout(self.timers.next()),
        }
    }

    fn datagram(&mut self, now: Instant, link: Link, bytes: &mut [u8]) {
        self.counters.one(Count::DatagramsIn);
        if bytes.len() > DATAGRAM_LEN_MAX {
            self.counters.one(Count::DatagramsBadLength);
            return;
        }
        // RFC 7983 §7.
        match bytes.first() {
            None => self.counters.one(Count::DatagramsBadLength),
            Some(0..=3) => match self.links.get(&link) {
                Some(key) => {
                    let key = *key;
                    self.guard(now, key, |core| core.receive_stun(now, link, bytes));
                }
                // Of one who proved nothing nobody knows yet whose it is; it changes nothing before its code is verified.
                None => self.contain(now, |_| None, |core| core.receive_stun(now, link, bytes)),
            },
            Some(first @ (20..=63 | 128..=191)) => {
                let Some(key) = self.links.get(&link).copied() else {
                    self.counters.one(Count::UnprovedSource);
                    return;
                };
                let is_dtls = *first < 64;
                self.guard(now, key, |core| {
                    core.trip(key, Planted::Packet);
                    if is_dtls {
                        core.receive_dtls(now, key, bytes);
                    } else if crate::rtp::is_rtcp(bytes) {
                        core.receive_rtcp(now, key, bytes);
                    } else {
                        core.receive_rtp(now, key, bytes);
                    }
                });
            }
            Some(_) => self.counters.one(Count::DatagramsUnknown),
        }
    }

    /// Runs one peer's work behind a catch: a bug of ours costs that peer, and is counted.
    #[inline]
    fn guard(&mut self, now: Instant, key: TransportKey, work: impl FnOnce(&mut Self)) {
        self.contain(now, |core| core.transports.get(key).map(|transport| transport.peer), work);
    }

    /// As [`Self::guard`]; `whose` says afterwards who pays, if anybody can be named.
    #[inline]
    fn contain(&mut self, now: Instant, whose: impl FnOnce(&Self) -> Option<PeerKey>, work: impl FnOnce(&mut Self)) {
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        if result.is_err() {
            self.broke(now, whose(self));
        }
    }

    #[cold]
    fn broke(&mut self, now: Instant, peer: Option<PeerKey>) {
        self.counters.one(Count::Panics);
        let Some(peer) = peer else { return };
        if catch_unwind(AssertUnwindSafe(|| self.end_peer(now, peer, EndReason::Internal))).is_err() {
            self.counters.one(Count::Panics);
            // Should this fail as well, the peer is a zombie until its call ends; the others go on.
            let orphans = catch_unwind(AssertUnwindSafe(|| self.cut_off(peer))).unwrap_or_default();
            for track in orphans {
                let _ = catch_unwind(AssertUnwindSafe(|| self.end_track(now, track)));
            }
        }
    }

    fn with_peer(&mut self, now: Instant, id: &PeerId, work: impl FnOnce(&mut Self, PeerKey)) {
        let Some(key) = self.peer_by_id.get(id).copied() else {
            self.counters.one(Count::UnknownName);
            return;
        };
        self.contain(now, |_| Some(key), |core| work(core, key));
    }

    fn with_peer_and_track(&mut self, now: Instant, peer: &PeerId, track: &TrackId, work: impl FnOnce(&mut Self, PeerKey, TrackKey)) {
        let Some(track) = self.track_by_id.get(track).copied() else {
            self.counters.one(Count::UnknownName);
            return;
        };
        self.with_peer(now, peer, |core, peer| work(core, peer, track));
    }

    /// Only the publisher itself, or the shell in its name, touches a track.
    fn with_own_track(&mut self, now: Instant, peer: &PeerId, track: &TrackId, work: impl FnOnce(&mut Self, TrackKey)) {
        self.with_peer_and_track(now, peer, track, |core, peer, track| {
            if core.tracks.get(track).is_some_and(|track| track.peer == Some(peer)) {
                work(core, track);
            }
        });
    }

    fn too_long(&mut self, peer: PeerId, side: crate::ids::Side) {
        self.counters.one(Count::SdpRefused);
        let reason = format!("the description is longer than {SDP_LEN_MAX} bytes");
        self.outbox.signal(&peer, crate::output::Signal::Refused { side, reason });
    }

    /// Everything whose time has come.
    fn wake(&mut self, now: Instant) {
        while let Some((timer, popped)) = self.timers.pop_due(now) {
            let due = {
                let Some(alarm) = self.alarm_of(timer) else { continue };
                let mut alarm_now = *alarm;
                let due = self.timers.fired(&mut alarm_now, timer, popped, now);
                if let Some(alarm) = self.alarm_of(timer) {
                    *alarm = alarm_now;
                }
                due
            };
            if due {
                self.fire(now, timer);
            }
        }
    }

    fn alarm_of(&mut self, timer: Timer) -> Option<&mut crate::timers::Alarm> {
        Some(match timer {
            Timer::State(key) => &mut self.transports.get_mut(key)?.alarms.state,
            Timer::Dtls(key) => &mut self.transports.get_mut(key)?.alarms.dtls,
            Timer::Sctp(key) => &mut self.transports.get_mut(key)?.alarms.sctp,
            Timer::Feedback(key) => &mut self.transports.get_mut(key)?.alarms.feedback,
            Timer::Reports(key) => &mut self.transports.get_mut(key)?.alarms.reports,
            Timer::Allocation(key) => &mut self.transports.get_mut(key)?.alarms.allocation,
            Timer::Slides(key) => &mut self.transports.get_mut(key)?.alarms.slides,
            Timer::Padding(key) => &mut self.transports.get_mut(key)?.alarms.padding,
            Timer::Pace(key) => &mut self.transports.get_mut(key)?.alarms.pace,
            Timer::KeyFrame(key) => &mut self.tracks.get_mut(key)?.key_frame_alarm,
            Timer::Demand(key) => &mut self.tracks.get_mut(key)?.demand_alarm,
            Timer::Speakers(key) => &mut self.calls.get_mut(key)?.speakers_alarm,
            Timer::Quality(key) => &mut self.calls.get_mut(key)?.quality_alarm,
            Timer::Tap(key) => &mut self.taps.get_mut(key)?.alarm,
        })
    }

    fn fire(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::State(key) => self.guard(now, key, |core| core.state_timeout(now, key)),
            Timer::Dtls(key) => self.guard(now, key, |core| core.dtls_timeout(now, key)),
            Timer::Sctp(key) => self.guard(now, key, |core| core.sctp_timeout(now, key)),
            Timer::Feedback(key) => self.guard(now, key, |core| core.feedback_timeout(now, key)),
            Timer::Reports(key) => self.guard(now, key, |core| {
                core.trip(key, Planted::Timer);
                core.reports_timeout(now, key);
            }),
            Timer::Allocation(key) => self.guard(now, key, |core| core.allocation_timeout(now, key)),
            Timer::Slides(key) | Timer::Pace(key) => self.show_goes_on(key),
            Timer::Padding(key) => self.guard(now, key, |core| core.pad(now, key)),
            Timer::KeyFrame(key) => self.contain(now, |core| core.publisher_of(key), |core| core.key_frame_timeout(now, key)),
            Timer::Demand(key) => self.contain(now, |core| core.publisher_of(key), |core| core.demand_timeout(now, key)),
            // A call's own work names nobody: it stops, and the call goes on.
            Timer::Speakers(key) => self.contain(
                now,
                |_| None,
                |core| {
                    core.trip_where(|_, at| at == Planted::Call);
                    core.speakers_timeout(now, key);
                },
            ),
            Timer::Quality(key) => self.contain(now, |_| None, |core| core.quality_timeout(now, key)),
            Timer::Tap(key) => self.contain(now, |_| None, |core| core.tap_timeout(now, key)),
        }
    }

    fn publisher_of(&self, track: TrackKey) -> Option<PeerKey> {
        self.tracks.get(track).and_then(|track| track.peer)
    }

    /// A transport got further. Told once per step and transport.
    pub(crate) fn reached(&mut self, key: TransportKey, step: Step, detail: String) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.step == step || (transport.step > step && transport.step != Step::Lost && step != Step::Lost) {
            return;
        }
        transport.step = step;
        let side = transport.side;
        let Some(peer) = self.peers.get_mut(transport.peer) else { return };
        if step > peer.step || peer.step == Step::Lost || step == Step::Lost {
            peer.step = step;
            peer.detail.clone_from(&detail);
        }
        if let Some(call) = self.calls.get(peer.call) {
            let event = Event::Step { peer: peer.id.clone(), side, step, detail };
            self.outbox.event(&call.id, event);
        }
    }

    /// Wall clock of a moment, Unix µs.
    pub(crate) fn unix_us(&self, now: Instant) -> u64 {
        let (moment, unix_us) = self.config.epoch;
        match now.checked_duration_since(moment) {
            Some(since) => unix_us + since.as_micros() as u64,
            None => unix_us.saturating_sub(moment.saturating_duration_since(now).as_micros() as u64),
        }
    }

    /// Keys are there: what waited for them may flow.
    pub(crate) fn transport_is_live(&mut self, now: Instant, key: TransportKey) {
        self.choose_layers(now, key);
    }

    /// Makes work for a peer meet a bug, to see what that costs. For tests.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn plant_bug(&mut self, peer: &PeerId, place: Planted) {
        self.planted = Some((peer.clone(), place));
    }

    /// Meets the bug that a test planted here. Nothing in release builds.
    #[inline]
    fn trip(&self, key: TransportKey, place: Planted) {
        let of_peer = |id: &PeerId| self.transports.get(key).and_then(|of| self.peers.get(of.peer)).is_some_and(|peer| peer.id == *id);
        self.trip_where(|id, at| (at == place || (place == Planted::Packet && at == Planted::Ending)) && of_peer(id));
    }

    /// As [`Self::trip`], while a peer is ended.
    #[inline]
    pub(crate) fn trip_ending(&self, peer: &PeerId) {
        self.trip_where(|id, at| at == Planted::Ending && id == peer);
    }

    #[inline]
    fn trip_where(&self, strikes: impl FnOnce(&PeerId, Planted) -> bool) {
        debug_assert!(self.planted.as_ref().is_none_or(|(id, at)| !strikes(id, *at)), "planted by a test");
    }
}
