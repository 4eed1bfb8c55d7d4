//! A track once more, in a codec for those who cannot decode the other (LiveKit's backup codec).
//!
//! Both are tracks, with layers and viewers of their own. To everybody but their publisher they are one: what is said of the original
//! holds for its backup too, and a viewer has one of them.

use std::time::Instant;

use crate::core::Core;
use crate::ids::{Kind, TrackId};
use crate::input::TrackSettings;
use crate::peer::PeerKey;
use crate::subscription::SubscriptionKey;
use crate::track::TrackKey;

impl Core {
    /// May the peer publish a backup of this?
    pub(crate) fn may_back_up(&self, peer: PeerKey, original: &TrackId) -> bool {
        let Some(key) = self.track_by_id.get(original).copied() else { return false };
        let is_own = self.tracks.get(key).is_some_and(|track| track.peer == Some(peer) && track.backup_of.is_none());
        is_own && self.backup_of(key).is_none()
    }

    /// The backup of a track.
    pub(crate) fn backup_of(&self, original: TrackKey) -> Option<TrackKey> {
        let track = self.tracks.get(original).filter(|track| track.kind == Kind::Video)?;
        let beside = match track.peer {
            Some(peer) => &self.peers.get(peer)?.tracks,
            None => &self.calls.get(track.call)?.stand_ins,
        };
        let is_backup = |key: &TrackKey| self.tracks.get(*key).is_some_and(|other| other.backup_of.as_ref() == Some(&track.id));
        beside.iter().copied().find(is_backup)
    }

    /// The viewer's subscription to the track, or to its backup.
    pub(crate) fn subscription_to_either(&self, viewer: PeerKey, track: TrackKey) -> Option<SubscriptionKey> {
        self.subscription_to(viewer, track).or_else(|| self.subscription_to(viewer, self.backup_of(track)?))
    }

    /// The viewer gets a backup on the section of the original, if that section has its codec, as browsers' have: nothing is negotiated, and
    /// for the browser it is the stream it was told of. False: it has to have a section of its own.
    pub(crate) fn take_place_of_original(&mut self, now: Instant, viewer: PeerKey, backup: TrackKey) -> bool {
        let Some((original, key)) = self.subscription_to_original(viewer, backup) else { return false };
        self.move_subscription(key, original, backup, true);
        self.apply_agreement(key, self.codec_used(key));
        let fits = self.subscriptions.get(key).is_some_and(|subscription| subscription.sending.is_some());
        if !fits {
            self.move_subscription(key, backup, original, false);
        }
        self.refresh_subscription(now, key);
        self.refresh_viewer(key);
        self.refresh_demand(now, original);
        self.refresh_demand(now, backup);
        fits
    }

    /// A backup's original, and the viewer's subscription to that.
    fn subscription_to_original(&self, viewer: PeerKey, backup: TrackKey) -> Option<(TrackKey, SubscriptionKey)> {
        let original = self.track_by_id.get(self.tracks.get(backup)?.backup_of.as_ref()?).copied()?;
        Some((original, self.subscription_to(viewer, original)?))
    }

    fn move_subscription(&mut self, key: SubscriptionKey, from: TrackKey, to: TrackKey, in_place: bool) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        (subscription.track, subscription.in_place) = (to, in_place);
        (subscription.target, subscription.selection) = (None, None);
        subscription.rewrite.close();
        if let Some(from) = self.tracks.get_mut(from) {
            from.subscriptions.retain(|other| *other != key);
            for layer in &from.layers {
                if let Some(layer) = self.layers.get_mut(*layer) {
                    layer.viewers.retain(|viewer| viewer.subscription != key);
                }
            }
        }
        if let Some(to) = self.tracks.get_mut(to) {
            to.subscriptions.push(key);
        }
    }

    /// Before a viewer gets a backup: it has the original no longer. What it wanted of that, which holds for the backup.
    pub(crate) fn give_up_original(&mut self, now: Instant, viewer: PeerKey, backup: TrackKey) -> Option<TrackSettings> {
        let (_, key) = self.subscription_to_original(viewer, backup)?;
        let wishes = self.subscriptions.get(key)?.settings;
        self.drop_subscription(now, key);
        Some(wishes)
    }
}
