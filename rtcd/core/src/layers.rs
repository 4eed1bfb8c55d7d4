//! Which layer each viewer gets, and which a publisher need not send.
//!
//! A viewer's wish (shown size, paused) and its share of bandwidth give a target; the stream moves there with the target's next
//! key frame and stays where it is until then. What nobody wants for a while is turned off at its publisher (dynacast).

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::budget::{Wish, allocate};
use crate::core::Core;
use crate::ids::{Kind, Source};
use crate::limits::{LAYERS_MAX, STEPS_MAX};
use crate::negotiate::CodecKind;
use crate::output::Signal;
use crate::peer::TransportKey;
use crate::peer::earshot::Earshot;
use crate::rtp::Extension;
use crate::subscription::{Subscription, SubscriptionKey};
use crate::svc::{Ladder, Scalable, Selection};
use crate::timers::Timer;
use crate::track::{LayerKey, Track, TrackKey};

/// Bandwidth is shared out this often while pictures flow.
const ALLOCATE_EVERY: Duration = Duration::from_millis(500);
/// A layer need not be larger than this share of the shown size (percent): the last quarter is not seen.
const SIZE_ENOUGH_PERCENT: u32 = 75;

/// On a way that carries less than this the key frame of a shared screen takes seconds: its viewer gets slides. Above the second it follows again.
const SLIDES_BELOW_BPS: u64 = 250_000;
const FOLLOWED_ABOVE_BPS: u64 = 400_000;

impl Core {
    /// Chooses for all of one viewer's pictures, and for its sounds whether they flow.
    pub(crate) fn choose_layers(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key) else { return };
        let mut wishes: SmallVec<[Wish; 8]> = SmallVec::new();
        let mut of: SmallVec<[SubscriptionKey; 8]> = SmallVec::new();
        let mut sounds_bps = 0;
        for subscription_key in &transport.subscriptions {
            let Some(subscription) = self.subscriptions.get(*subscription_key) else { continue };
            let Some(track) = self.tracks.get(subscription.track) else { continue };
            if subscription.sending.is_none() || subscription.settings.disabled || track.muted || track.layers.is_empty() {
                continue;
            }
            match track.kind {
                Kind::Audio => sounds_bps += subscription.rate.bps(now),
                Kind::Video => {
                    wishes.push(self.wish(now, subscription, track));
                    of.push(*subscription_key);
                }
            }
        }
        let mut budget_bps = transport.congestion.pictures_bps(now, sounds_bps).unwrap_or(u64::MAX);
        let narrow_bps = transport.congestion.narrow.whole_bps(now);
        let whole_bps = transport.congestion.whole_bps(now, sounds_bps).unwrap_or(u64::MAX);
        let any = !wishes.is_empty() || narrow_bps.is_some();
        let wanted_bps: u64 = wishes.iter().map(Wish::wanted_bps).sum();
        let slides = self.slides_of(key, whole_bps, &mut budget_bps, &mut wishes, &mut of);
        self.set_slides(now, key, whole_bps, &slides);
        let has_slides = !slides.is_empty();
        for (subscription, _) in slides {
            self.tell_paused(subscription, false);
        }
        self.set_earshot(now, key, narrow_bps.map(Earshot::talkers));
        allocate(budget_bps, &mut wishes);
        self.want(now, key, wanted_bps, has_slides || wishes.iter().any(Wish::is_held_back));
        self.set_pace(now, key, budget_bps, wanted_bps);
        for (subscription, wish) in of.into_iter().zip(wishes) {
            self.grant(now, subscription, wish.choice);
        }
        if any
            && let Some(transport) = self.transports.get_mut(key)
            && !transport.alarms.allocation.is_set()
        {
            self.timers.set(&mut transport.alarms.allocation, Timer::Allocation(key), now + ALLOCATE_EVERY);
        }
    }

    /// Takes the shared screens that the way is too narrow to follow out of the wishes, and what they get out of the budget.
    fn slides_of(
        &self,
        key: TransportKey,
        whole_bps: u64,
        budget_bps: &mut u64,
        wishes: &mut SmallVec<[Wish; 8]>,
        of: &mut SmallVec<[SubscriptionKey; 8]>,
    ) -> SmallVec<[(SubscriptionKey, LayerKey); 2]> {
        let mut slides = SmallVec::new();
        if whole_bps == u64::MAX && *budget_bps == u64::MAX {
            return slides;
        }
        let slideshow = self.transports.get(key).and_then(|transport| transport.slideshow.as_ref());
        let mut at = 0;
        while let (Some(wish), Some(subscription)) = (wishes.get(at), of.get(at).copied()) {
            let was = slideshow.is_some_and(|slideshow| slideshow.shows(subscription));
            let (below_bps, room_percent) = if was { (FOLLOWED_ABOVE_BPS, 115) } else { (SLIDES_BELOW_BPS, 100) };
            let lowest = wish.lowest().filter(|_| wish.screen);
            let layer = lowest.filter(|(_, bps)| whole_bps < below_bps || bps * room_percent / 100 > *budget_bps);
            let track = self.subscriptions.get(subscription).and_then(|subscription| self.tracks.get(subscription.track));
            // A page that stands still has no rate, and its next picture is no smaller for that.
            let still =
                slideshow.filter(|_| lowest.is_none() && whole_bps < below_bps).and_then(|slideshow| slideshow.layer_of(subscription));
            match layer.and_then(|(choice, _)| track?.layer_of(choice)).or(still) {
                Some(layer) => {
                    slides.push((subscription, layer));
                    *budget_bps = budget_bps.saturating_sub(SLIDES_BELOW_BPS);
                    wishes.remove(at);
                    of.remove(at);
                }
                None => at += 1,
            }
        }
        slides
    }

    /// A viewer's way carries so many talkers; `None`: it is not known to be narrow.
    fn set_earshot(&mut self, now: Instant, key: TransportKey, talkers: Option<usize>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        match (talkers, &mut transport.earshot) {
            (Some(talkers), Some(earshot)) => earshot.set_talkers(now, talkers, |layer| self.layers.get(layer).is_some()),
            (Some(talkers), None) => transport.earshot = Some(Box::new(Earshot::new(talkers))),
            (None, Some(earshot)) => {
                // What was kept back leaves no hole.
                for subscription in &transport.subscriptions {
                    if let Some(subscription) = self.subscriptions.get_mut(*subscription)
                        && let Some(layer) = subscription.rewrite.layer()
                        && earshot.shut_out().any(|shut_out| shut_out == layer)
                    {
                        subscription.rewrite.close();
                    }
                }
                transport.earshot = None;
            }
            (None, None) => {}
        }
    }

    fn wish(&self, now: Instant, subscription: &Subscription, track: &Track) -> Wish {
        let mut layer_bps = [0; STEPS_MAX];
        let has_floor = self.calls.get(track.call).and_then(|call| call.speakers.floor()) == Some(track.voice);
        if let Some(stream) = self.selectable(subscription, track) {
            let ladder = ladder(subscription, track, stream);
            let current = subscription.rewrite.layer().and_then(|_| subscription.selection.as_ref()?.target(stream));
            return Wish {
                screen: track.source == Source::ScreenShare,
                priority: subscription.settings.priority,
                has_floor,
                layer_max: ladder.top(),
                layer_bps: if self.is_track_sending(now, track) { ladder.bps(stream) } else { layer_bps },
                current: current.map(|target| ladder.step_of(stream, target)),
                choice: None,
            };
        }
        for (place, layer) in layer_bps.iter_mut().zip(&track.layers) {
            if let Some(layer) = self.layers.get(*layer).filter(|layer| layer.is_sending(now)) {
                // A layer that has just begun has no rate yet, but it is there.
                *place = u32::try_from(layer.arrivals.bitrate_bps(now)).unwrap_or(u32::MAX).max(1);
            }
        }
        let current = subscription.rewrite.layer().and_then(|layer| self.layers.get(layer)).map(|layer| layer.index);
        Wish {
            screen: track.source == Source::ScreenShare,
            priority: subscription.settings.priority,
            has_floor,
            layer_max: layer_max(subscription, track),
            layer_bps,
            current,
            choice: None,
        }
    }

    /// The allocator's choice becomes a target; pausing and resuming is told.
    fn grant(&mut self, now: Instant, key: SubscriptionKey, choice: Option<u8>) {
        self.tell_paused(key, choice.is_none());
        let Some(track) = self.subscriptions.get(key).and_then(|subscription| self.tracks.get(subscription.track)) else { return };
        let target = choice.and_then(|choice| track.layer_of(choice));
        self.aim(now, key, target);
        if let (Some(step), Some(layer)) = (choice, target) {
            self.grant_step(now, key, layer, step);
        }
    }

    /// The same inside of a stream.
    fn grant_step(&mut self, now: Instant, key: SubscriptionKey, layer: LayerKey, step: u8) {
        let Some((subscription, track)) = self.subscriptions.get(key).and_then(|found| Some((found, self.tracks.get(found.track)?))) else {
            return;
        };
        let Some(stream) = self.selectable(subscription, track) else { return };
        let Some(target) = ladder(subscription, track, stream).target(step) else { return };
        let layers = stream.layers_of(target);
        let Some(stream) = self.layers.get(layer).and_then(|layer| layer.scalable.as_deref()) else { return };
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let selection = subscription.selection.get_or_insert_with(|| Box::new(Selection::new()));
        // While it waits for its first key frame, that one brings everything.
        if selection.want(stream, layers) && subscription.rewrite.layer().is_some() {
            self.want_key_frame(now, layer);
        }
    }

    /// The stream of a track in which the viewer's layers can be chosen.
    pub(crate) fn selectable<'a>(&'a self, subscription: &Subscription, track: &Track) -> Option<&'a Scalable> {
        let [only] = track.layers.as_slice() else { return None };
        let stream = self.layers.get(*only)?.scalable.as_deref().filter(|stream| stream.is_selectable())?;
        // A receiver of VP8 without descriptors takes missing picture ids for loss.
        let sending = subscription.sending.as_ref()?;
        let copes = sending.kind != CodecKind::Vp8 || sending.extensions.id(Extension::DependencyDescriptor).is_some();
        copes.then_some(stream)
    }

    fn is_track_sending(&self, now: Instant, track: &Track) -> bool {
        track.layers.iter().filter_map(|layer| self.layers.get(*layer)).any(|layer| layer.is_sending(now))
    }

    fn tell_paused(&mut self, key: SubscriptionKey, paused: bool) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let Some(track) = self.tracks.get(subscription.track) else { return };
        if std::mem::replace(&mut subscription.paused, paused) != paused
            && let Some(peer) = self.peers.get(subscription.viewer)
        {
            self.outbox.signal(&peer.id, Signal::StreamState { track: track.id.clone(), paused });
        }
    }

    /// Sets the layer that a subscription shall follow.
    pub(crate) fn aim(&mut self, now: Instant, key: SubscriptionKey, target: Option<LayerKey>) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let (following, kind, track) = (subscription.rewrite.layer(), subscription.kind, subscription.track);
        let changed = subscription.target != target;
        subscription.target = target;
        let waits = kind == Kind::Video && target.is_some() && following.is_none();
        if waits && subscription.waits_since.is_none() {
            subscription.waits_since = Some(now);
            subscription.key_frame_waits = subscription.key_frame_waits.saturating_add(1);
        } else if !waits {
            subscription.waits_since = None;
        }
        let transport = self.transports.get_mut(subscription.transport);
        // Who cannot be sent anything yet, or any more, costs the publisher no key frame. It chooses again once it can.
        let is_reached = transport.as_ref().is_some_and(|transport| transport.keys.is_some() && transport.ice.selected().is_some());
        if target.is_none() {
            subscription.rewrite.close();
            if let Some(pacer) = transport.and_then(|transport| transport.pacer.as_deref_mut()) {
                pacer.forget(key);
            }
        }
        if changed {
            self.refresh_viewer(key);
            self.refresh_demand(now, track);
        }
        // Asked for again with every allocation until it came: the request or the key frame may have been lost.
        if kind == Kind::Video
            && is_reached
            && let Some(target) = target
            && following != Some(target)
            && !self.waits_paced(key)
        {
            self.want_key_frame(now, target);
        }
    }

    /// What a subscription gets may have changed for another reason than bandwidth.
    pub(crate) fn refresh_subscription(&mut self, now: Instant, key: SubscriptionKey) {
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let Some(track) = self.tracks.get(subscription.track) else { return };
        let flows = subscription.sending.is_some() && !subscription.settings.disabled && !track.muted;
        match (flows, subscription.kind) {
            (false, _) => self.aim(now, key, None),
            (true, Kind::Audio) => {
                let only = track.layers.first().copied();
                self.aim(now, key, only);
            }
            (true, Kind::Video) => {
                let transport = subscription.transport;
                self.choose_layers(now, transport);
            }
        }
    }

    /// A layer sends (again): viewers and taps that wanted it may have it.
    pub(crate) fn layer_woke(&mut self, now: Instant, layer: LayerKey) {
        let Some(track_key) = self.layers.get(layer).map(|layer| layer.track) else { return };
        let Some(track) = self.tracks.get(track_key) else { return };
        if track.kind == Kind::Audio || track.layers.len() < 2 {
            return;
        }
        self.choose_for_viewers(now, layer);
        self.taps_choose(now, track_key);
    }

    /// What a track sends has changed: everybody who sees it may get another part of it.
    pub(crate) fn choose_for_viewers(&mut self, now: Instant, layer: LayerKey) {
        let Some(track) = self.layers.get(layer).and_then(|layer| self.tracks.get(layer.track)) else { return };
        let transports: SmallVec<[TransportKey; 16]> =
            track.subscriptions.iter().filter_map(|key| self.subscriptions.get(*key)).map(|subscription| subscription.transport).collect();
        for transport in transports {
            self.choose_layers(now, transport);
        }
    }

    /// Bandwidth is shared out again.
    pub(crate) fn allocation_timeout(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get(key) else { return };
        let layers: SmallVec<[LayerKey; 16]> = transport
            .subscriptions
            .iter()
            .filter_map(|key| self.subscriptions.get(*key))
            .filter_map(|subscription| self.tracks.get(subscription.track))
            .flat_map(|track| track.layers.iter().copied())
            .collect();
        for layer in layers {
            if let Some(layer) = self.layers.get_mut(layer) {
                layer.awake = layer.is_sending(now);
            }
        }
        self.choose_layers(now, key);
        self.pad(now, key);
    }

    /// Somebody cannot go on without a key frame of this layer.
    pub(crate) fn want_key_frame(&mut self, now: Instant, layer: LayerKey) {
        let Some(layer) = self.layers.get_mut(layer) else { return };
        if !layer.key_frames.is_waiting() {
            layer.key_frames.handle_wish();
        }
        let track = layer.track;
        self.key_frame_timeout(now, track);
    }

    /// Packets are lost for good: pictures of everybody who follows this layer are broken.
    pub(crate) fn picture_broke(&mut self, now: Instant, key: LayerKey) {
        let Some(layer) = self.layers.get(key) else { return };
        let video = self.tracks.get(layer.track).is_some_and(|track| track.kind == Kind::Video);
        if video && !(layer.viewers.is_empty() && layer.taps.is_empty()) {
            self.want_key_frame(now, key);
        }
    }

    /// The publisher's source behind a layer changed: numbers start anew, so stretches begin anew.
    pub(crate) fn restart_layer(&mut self, now: Instant, key: LayerKey) {
        let Some(track) = self.layers.get(key).and_then(|layer| self.tracks.get(layer.track)) else { return };
        for subscription in &track.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                subscription.rewrite.forget(key);
                if let Some(selection) = &mut subscription.selection {
                    selection.restart();
                }
            }
        }
        if let Some(layer) = self.layers.get_mut(key) {
            layer.scalable = None;
            // Numbers begin anew; how loud it was is soon known again.
            layer.microphone = None;
            layer.padding = None;
            layer.epoch = layer.epoch.wrapping_add(1);
        }
        self.taps_restart(now, key);
    }

    /// The publisher changed to another kind of codec under the same source: what was inside of the stream is no more, nor its rates.
    pub(crate) fn forget_layers_inside(&mut self, key: LayerKey) {
        let Some(layer) = self.layers.get_mut(key) else { return };
        let Some(track) = layer.scalable.take().and_then(|_| self.tracks.get(layer.track)) else { return };
        for subscription in &track.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                // It begins anew with the key frame that such a change begins with.
                subscription.selection = None;
                subscription.rewrite.close();
            }
        }
    }

    /// Which layers anybody wants; the publisher is told of changes.
    pub(crate) fn refresh_demand(&mut self, now: Instant, track_key: TrackKey) {
        let Some(track) = self.tracks.get(track_key) else { return };
        // A microphone always sends; it is another shard that need not pass it on.
        if (track.kind == Kind::Audio && track.origin.is_none()) || track.layers.is_empty() {
            return;
        }
        let mut wanted = track.relays.wanted();
        for key in &track.subscriptions {
            let Some(subscription) = self.subscriptions.get(*key) else { continue };
            if subscription.settings.disabled || subscription.sending.is_none() {
                continue;
            }
            // The wish counts, not what is granted: a layer that is off can only be granted once it is on.
            let wish = usize::from(layer_max(subscription, track)).min(track.layers.len() - 1);
            let granted = subscription.target.and_then(|layer| self.layers.get(layer)).map_or(0, |layer| usize::from(layer.index));
            // For whom the best is too much, each step on the way to it may be the one that fits.
            for place in wanted.iter_mut().take(wish + 1).skip(granted) {
                *place = true;
            }
            // The lowest stands by: it is what a viewer falls back to when its line gets thin.
            if let Some(place) = wanted.first_mut() {
                *place = true;
            }
        }
        if self.is_tapped(track_key)
            && let Some(place) = wanted.get_mut(track.layers.len() - 1)
        {
            *place = true;
        }
        if let Some(track) = self.tracks.get_mut(track_key) {
            track.demand.handle_wanted(now, wanted);
        }
        self.demand_timeout(now, track_key);
    }

    /// Tells the publisher what is wanted, if that changed.
    pub(crate) fn demand_timeout(&mut self, now: Instant, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        if let Some(wanted) = track.demand.poll(now) {
            if track.origin.is_some() {
                self.request_relay(key, [false; LAYERS_MAX]);
            } else {
                let layers = (0..).zip(wanted).take(track.layers.len()).collect();
                self.outbox.signal(&track.publisher, Signal::WantedLayers { track: track.id.clone(), layers });
            }
        }
        let Some(track) = self.tracks.get_mut(key) else { return };
        if let Some(at) = track.demand.poll_timeout() {
            self.timers.set(&mut track.demand_alarm, Timer::Demand(key), at);
        }
    }
}

/// What a viewer can use of the layers inside a stream: as large as it shows the picture, and as often as it says.
pub(crate) fn ladder(subscription: &Subscription, track: &Track, stream: &Scalable) -> Ladder {
    let settings = &subscription.settings;
    let (spatial_top, temporal_top) = stream.top();
    let shown = settings.width.max(settings.height);
    let size = |spatial: u8| match stream.size(spatial) {
        // As every standard mode has it: half of the next.
        0 => track.announced_size(0) >> (spatial_top - spatial),
        size => size,
    };
    let large_enough = |spatial: &u8| shown != 0 && is_enough(size(*spatial), shown);
    let spatial = (0..=spatial_top).find(large_enough).unwrap_or(spatial_top).min(settings.layer_max);
    let fps = |temporal: u8| stream.target_of(spatial, temporal).map_or(0, |target| stream.rates().fps(target));
    let often_enough = |temporal: &u8| settings.fps != 0 && fps(*temporal) != 0 && is_enough(fps(*temporal), settings.fps);
    let temporal = (0..=temporal_top).find(often_enough).unwrap_or(temporal_top);
    Ladder::new(stream, track.source == Source::ScreenShare, spatial, temporal)
}

/// Every step of a stream, for who reports where a viewer stands.
pub(crate) fn whole_ladder(track: &Track, stream: &Scalable) -> Ladder {
    let (spatial, temporal) = stream.top();
    Ladder::new(stream, track.source == Source::ScreenShare, spatial, temporal)
}

/// Is a layer enough for what is wanted? Where nothing is said of it, it is taken for that.
fn is_enough(has: u32, wanted: u32) -> bool {
    has == 0 || has >= wanted / 100 * SIZE_ENOUGH_PERCENT + wanted % 100 * SIZE_ENOUGH_PERCENT / 100
}

/// The highest layer a viewer can use: as large as it shows the picture, or as it says.
pub(crate) fn layer_max(subscription: &Subscription, track: &Track) -> u8 {
    let top = track.layers.len().saturating_sub(1) as u8;
    let shown = subscription.settings.width.max(subscription.settings.height);
    let by_size = (0..=top).find(|index| is_enough(track.announced_size(*index), shown));
    let by_size = if shown == 0 { top } else { by_size.unwrap_or(top) };
    by_size.min(subscription.settings.layer_max).min(top)
}
