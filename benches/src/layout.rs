//! A receiver's layout: which of the pictures it sees is large.

use std::collections::HashMap;

use livekit_protocol as lk;
use tokio::sync::mpsc;

use crate::sdp;

/// Number of the largest layer, as packets carry it.
pub(crate) const LARGE: u8 = 2;
/// Sizes of a picture that is large and of one that is small.
const SIZES: [(u32, u32); 2] = [(1280, 720), (320, 180)];

/// One receiver's hand on what it is sent, over LiveKit's signalling.
pub(crate) struct Layout {
    requests: mpsc::UnboundedSender<lk::signal_request::Message>,
    /// Track ids by the sources that carry them.
    tracks: Vec<(u32, String)>,
    /// The large one's place in `tracks`.
    large: Option<usize>,
    /// When its layer was asked for, Unix ns; until it comes.
    asked: Option<u64>,
    /// How long it took, ms.
    pub(crate) took: Vec<f64>,
    /// Last packet of each source, Unix ns.
    last: HashMap<u32, u64>,
    /// Longest time in which one of the pictures stood, ms.
    pub(crate) stood: f64,
}

impl Layout {
    /// Of a receiver that was offered this.
    pub(crate) fn new(offer: &str, requests: mpsc::UnboundedSender<lk::signal_request::Message>) -> Self {
        let tracks = sdp::tracks(offer);
        Self { requests, tracks, large: None, asked: None, took: Vec::new(), last: HashMap::new(), stood: 0.0 }
    }

    /// Shows another picture large, all others small.
    pub(crate) fn show(&mut self, large: usize, unix_ns: u64) {
        if self.tracks.is_empty() {
            return;
        }
        let large = large % self.tracks.len();
        let before = self.large.replace(large);
        for (at, (_, sid)) in self.tracks.iter().enumerate() {
            // The first time all, then the two that change.
            if before.is_none() || before == Some(at) || at == large {
                let (width, height) = SIZES[usize::from(at != large)];
                let settings =
                    lk::UpdateTrackSettings { track_sids: vec![sid.clone()], width, height, fps: 30, ..lk::UpdateTrackSettings::default() };
                let _ = self.requests.send(lk::signal_request::Message::TrackSetting(settings));
            }
        }
        self.asked = (before != Some(large)).then_some(unix_ns);
    }

    /// A packet of a layer has come.
    pub(crate) fn note(&mut self, ssrc: u32, layer: u8, unix_ns: u64) {
        if let Some(last) = self.last.insert(ssrc, unix_ns) {
            self.stood = self.stood.max(unix_ns.saturating_sub(last) as f64 / 1e6);
        }
        let large = self.large.and_then(|at| self.tracks.get(at)).is_some_and(|(of, _)| *of == ssrc);
        if large
            && layer == LARGE
            && let Some(asked) = self.asked.take()
        {
            self.took.push(unix_ns.saturating_sub(asked) as f64 / 1e6);
        }
    }

    /// The large picture has not come since it was asked for.
    pub(crate) fn waits(&self) -> bool {
        self.asked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "m=application 9 X\r\na=mid:0\r\nm=video 9 X\r\na=sendonly\r\na=msid:PA_a TR_a\r\na=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\n\
                         m=video 9 X\r\na=sendonly\r\na=msid:PA_b TR_b\r\na=ssrc:9 cname:x\r\n";

    #[test]
    fn who_becomes_large_is_asked_for_and_timed() {
        let (requests, mut asked) = mpsc::unbounded_channel();
        let mut layout = Layout::new(OFFER, requests);
        let mut sizes = || {
            let mut sizes = Vec::new();
            while let Ok(lk::signal_request::Message::TrackSetting(settings)) = asked.try_recv() {
                sizes.push((settings.track_sids.concat(), settings.width));
            }
            sizes
        };
        layout.show(0, 0);
        assert_eq!(sizes(), [("TR_a".to_owned(), 1280), ("TR_b".to_owned(), 320)]);
        layout.note(7, LARGE, 5_000_000);
        layout.show(1, 10_000_000);
        assert_eq!(sizes(), [("TR_a".to_owned(), 320), ("TR_b".to_owned(), 1280)]);
        layout.note(9, 0, 12_000_000);
        layout.note(7, LARGE, 13_000_000);
        assert!(layout.waits());
        layout.note(9, LARGE, 40_000_000);
        assert_eq!((layout.took.as_slice(), layout.waits(), layout.stood), ([5.0, 30.0].as_slice(), false, 28.0));
    }
}
