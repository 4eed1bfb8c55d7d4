//! A shared screen over a way too narrow to follow it: one whole key frame after the other, no faster than the way carries them beside
//! the sounds.
//!
//! A key frame alone fills 64 kbit/s for seconds. Sent as it comes it stands in the way's queue, and every sound waits behind
//! it; what of it is lost is asked for again, and the next key frame is asked for before the first is through. Here sounds never
//! wait: what they take is charged to the pictures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::TransportKey;
use crate::core::Core;
use crate::slide::{Slide, Slides};
use crate::subscription::SubscriptionKey;
use crate::timers::Timer;
use crate::track::LayerKey;

/// What leaves together: a timer for less costs more than it spares.
const BURST: Duration = Duration::from_millis(5);
/// Sounds hold slides back for no longer than this, however many there are.
const DEBT_MAX: Duration = Duration::from_secs(3);
/// Key frames are asked for no more often: everybody else gets them too.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After the last packet of a slide: what was lost of it is asked for again.
const REST: Duration = Duration::from_secs(1);
/// Packets that wait to be sent again. Two bytes each.
const AGAIN_MAX: usize = 64;
/// Slower is no show.
const BPS_MIN: u64 = 8_000;
/// With nothing to send nobody is in a hurry.
const IDLE: Duration = Duration::from_millis(100);
/// IP and UDP headers.
const HEADERS_LEN: usize = 28;

/// One screen.
#[derive(Debug)]
struct Show {
    subscription: SubscriptionKey,
    layer: LayerKey,
    slide: Option<Arc<Slide>>,
    /// The next packet of it.
    next: usize,
    again: SmallVec<[u16; 8]>,
    through: Option<Instant>,
    asked: Option<Instant>,
}

/// A packet whose turn it is.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) subscription: SubscriptionKey,
    pub(crate) layer: LayerKey,
    pub(crate) slide: Arc<Slide>,
    pub(crate) index: usize,
    pub(crate) again: bool,
}

/// All screens of one viewer.
#[derive(Debug)]
pub(crate) struct Slideshow {
    bps: u64,
    /// When the way is through with what left.
    free_at: Instant,
    shows: SmallVec<[Show; 1]>,
}

impl Slideshow {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bps: BPS_MIN, free_at: now, shows: SmallVec::new() }
    }

    /// What the way carries, sounds and pictures.
    pub(crate) fn set_bps(&mut self, bps: u64) {
        self.bps = bps.max(BPS_MIN);
    }

    pub(crate) fn shows(&self, subscription: SubscriptionKey) -> bool {
        self.shows.iter().any(|show| show.subscription == subscription)
    }

    /// What is shown of a picture.
    pub(crate) fn layer_of(&self, subscription: SubscriptionKey) -> Option<LayerKey> {
        self.shows.iter().find(|show| show.subscription == subscription).map(|show| show.layer)
    }

    fn add(&mut self, subscription: SubscriptionKey, layer: LayerKey) {
        let (slide, next, again) = (None, 0, SmallVec::new());
        self.shows.push(Show { subscription, layer, slide, next, again, through: None, asked: None });
    }

    /// So much left for the viewer.
    pub(crate) fn charge(&mut self, now: Instant, bytes: usize, packets: u64) {
        let bits = (bytes + packets as usize * HEADERS_LEN) as f64 * 8.0;
        self.free_at = (self.free_at.max(now) + Duration::from_secs_f64(bits / self.bps as f64)).min(now + DEBT_MAX);
    }

    /// A packet is asked for again. One of another slide is of no use any more.
    pub(crate) fn resend(&mut self, subscription: SubscriptionKey, seq: u64) {
        let Some(show) = self.shows.iter_mut().find(|show| show.subscription == subscription) else { return };
        let index = show.slide.as_ref().and_then(|slide| slide.index_of(seq)).and_then(|index| u16::try_from(index).ok());
        if let Some(index) = index.filter(|index| usize::from(*index) < show.next)
            && show.again.len() < AGAIN_MAX
            && !show.again.contains(&index)
        {
            show.again.push(index);
        }
    }

    /// Takes up a new slide where the last one is through. True: the next one has to be asked for.
    pub(crate) fn take_up(&mut self, now: Instant, subscription: SubscriptionKey, slides: &Slides) -> bool {
        let Some(show) = self.shows.iter_mut().find(|show| show.subscription == subscription) else { return false };
        if show.is_busy() || show.through.is_some_and(|through| now.saturating_duration_since(through) < REST) {
            return false;
        }
        let newest = slides.newest().filter(|newest| show.slide.as_ref().is_none_or(|shown| shown.first() != newest.first()));
        if let Some(newest) = newest {
            (show.slide, show.next, show.through) = (Some(newest.clone()), 0, None);
            show.again.clear();
            return false;
        }
        let asks = show.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_EVERY);
        if asks {
            show.asked = Some(now);
        }
        asks
    }

    /// The packet whose turn it is.
    pub(crate) fn turn(&mut self, now: Instant) -> Option<Turn> {
        if self.free_at > now + BURST {
            return None;
        }
        let show = self.shows.iter_mut().find(|show| show.is_busy())?;
        let slide = show.slide.clone()?;
        let (subscription, layer) = (show.subscription, show.layer);
        if let Some(index) = show.again.pop() {
            return Some(Turn { subscription, layer, slide, index: usize::from(index), again: true });
        }
        let index = show.next;
        show.next += 1;
        if slide.packet(show.next).is_none() {
            show.through = Some(now);
        }
        Some(Turn { subscription, layer, slide, index, again: false })
    }

    /// Nothing of this is shown any more: it is muted, or not wanted.
    pub(crate) fn drop_slide(&mut self, subscription: SubscriptionKey) {
        if let Some(show) = self.shows.iter_mut().find(|show| show.subscription == subscription) {
            (show.slide, show.next) = (None, 0);
            show.again.clear();
        }
    }

    /// When the next packet's turn comes, or a slide is to be taken up.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let due = |show: &Show| {
            if show.is_busy() {
                return self.free_at.checked_sub(BURST).unwrap_or(now).max(now + BURST);
            }
            let asked = show.asked.map_or(now, |asked| asked + ASK_EVERY);
            asked.max(show.through.map_or(now, |through| through + REST)).max(now + IDLE)
        };
        self.shows.iter().map(due).min()
    }

    pub(crate) fn subscriptions(&self) -> SmallVec<[(SubscriptionKey, LayerKey); 2]> {
        self.shows.iter().map(|show| (show.subscription, show.layer)).collect()
    }
}

impl Show {
    fn is_busy(&self) -> bool {
        !self.again.is_empty() || self.slide.as_ref().is_some_and(|slide| slide.packet(self.next).is_some())
    }
}

impl Core {
    /// Exactly these pictures are shown as slides, on a way that carries so much.
    pub(crate) fn set_slides(&mut self, now: Instant, key: TransportKey, bps: u64, wanted: &[(SubscriptionKey, LayerKey)]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if wanted.is_empty() && transport.slideshow.is_none() {
            return;
        }
        let mut slideshow = transport.slideshow.take().unwrap_or_else(|| Box::new(Slideshow::new(now)));
        slideshow.set_bps(bps);
        for known in slideshow.subscriptions() {
            if !wanted.contains(&known) {
                slideshow.shows.retain(|show| show.subscription != known.0);
                if let Some(subscription) = self.subscriptions.get_mut(known.0) {
                    subscription.rewrite.close();
                }
            }
        }
        for (subscription, layer) in wanted {
            if let Some(layer) = self.layers.get_mut(*layer)
                && let Some(track) = self.tracks.get(layer.track)
            {
                layer.slides.get_or_insert_with(|| Box::new(Slides::new(now, &track.rooms.slides))).want(now);
            }
            if !slideshow.shows(*subscription) {
                slideshow.add(*subscription, *layer);
                // From now on nothing of it is forwarded as it comes.
                self.aim(now, *subscription, None);
            }
        }
        if let Some(transport) = self.transports.get_mut(key).filter(|_| !wanted.is_empty()) {
            transport.slideshow = Some(slideshow);
        }
        self.show_goes_on(key);
    }

    /// A layer has a new slide.
    pub(crate) fn slide_came(&mut self, layer: LayerKey) {
        let Some(track) = self.layers.get(layer).and_then(|layer| self.tracks.get(layer.track)) else { return };
        let of = track.subscriptions.iter().filter_map(|key| Some((*key, self.subscriptions.get(*key)?.transport)));
        let viewers: SmallVec<[TransportKey; 8]> = of
            .filter(|(key, transport)| {
                let slideshow = self.transports.get(*transport).and_then(|transport| transport.slideshow.as_ref());
                slideshow.is_some_and(|slideshow| slideshow.shows(*key))
            })
            .map(|(_, transport)| transport)
            .collect();
        viewers.into_iter().for_each(|transport| self.show_goes_on(transport));
    }

    /// A viewer's slides may have something to send.
    pub(crate) fn show_goes_on(&mut self, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key).filter(|transport| !transport.dirty) {
            transport.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Takes up slides, asks for those that are missing, and sets the time of the next packet.
    pub(crate) fn prepare_slides(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(mut slideshow) = transport.slideshow.take() else { return };
        let mut missing: SmallVec<[LayerKey; 2]> = SmallVec::new();
        for (key, layer) in slideshow.subscriptions() {
            let track = self.layers.get(layer).and_then(|layer| self.tracks.get(layer.track));
            let is_open = track.is_some_and(|track| !track.muted)
                && self
                    .subscriptions
                    .get(key)
                    .is_some_and(|subscription| subscription.sending.is_some() && !subscription.settings.disabled);
            let slides = self.layers.get(layer).and_then(|layer| layer.slides.as_ref());
            match slides {
                Some(slides) if is_open => {
                    if slideshow.take_up(now, key, slides) {
                        missing.push(layer);
                    }
                }
                Some(_) | None => slideshow.drop_slide(key),
            }
        }
        if let Some(transport) = self.transports.get_mut(key) {
            transport.slideshow = Some(slideshow);
        }
        missing.into_iter().for_each(|layer| self.want_key_frame(now, layer));
    }

    /// Sets the alarm for what comes next.
    pub(crate) fn arm_slides(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(at) = transport.slideshow.as_ref().and_then(|slideshow| slideshow.poll_timeout(now)) else { return };
        self.timers.set(&mut transport.alarms.slides, Timer::Slides(key), at);
    }
}
