//! What is sent to whom.

use std::time::Duration;

/// One traffic pattern.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// For tables and the command line.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// In all calls together.
    pub(crate) publishers: usize,
    /// In all calls together; each hears and sees everybody who publishes in its call.
    pub(crate) receivers: usize,
    /// Everybody's number modulo this is their call.
    pub(crate) calls: usize,
    /// A screen share instead of speech.
    pub(crate) video: bool,
    /// The last of the publishers shares a screen beside the others' speech: [`Self::of`].
    pub(crate) screen: bool,
    /// Publishers offer a source of its own for pictures' packets that are sent again, as browsers do.
    pub(crate) repair: bool,
    /// Bytes of RTP payload.
    pub(crate) payload: usize,
    /// Packets sent back to back.
    pub(crate) burst: usize,
    /// A camera in three layers, smallest first: packets of each in a burst.
    pub(crate) layers: Option<[usize; 3]>,
    /// Between bursts.
    pub(crate) every: Duration,
    /// The bar for CPU against the ideal forwarder, if it has one here.
    pub(crate) target: Option<f64>,
}

impl Scenario {
    /// Speech, as Opus sends it.
    const fn speech(name: &'static str, title: &'static str, publishers: usize, target: Option<f64>) -> Self {
        let every = Duration::from_millis(20);
        Self {
            name,
            title,
            publishers,
            receivers: RECEIVERS,
            calls: 1,
            video: false,
            screen: false,
            repair: false,
            payload: 100,
            burst: 1,
            layers: None,
            every,
            target,
        }
    }

    /// Screen shares of 30 frames a second and 2.5 Mbit/s.
    const fn share(name: &'static str, title: &'static str, publishers: usize, target: Option<f64>) -> Self {
        let every = Duration::from_micros(33_333);
        Self { video: true, payload: 1150, burst: 9, every, ..Self::speech(name, title, publishers, target) }
    }

    /// As many calls of ten, with two who speak in each.
    const fn tens(name: &'static str, title: &'static str, calls: usize) -> Self {
        Self { receivers: calls * 8, calls, ..Self::speech(name, title, calls * 2, Some(1.15)) }
    }

    /// As many calls, with one speaker and one listener each.
    const fn pairs(name: &'static str, title: &'static str, calls: usize) -> Self {
        Self { receivers: calls, calls, ..Self::speech(name, title, calls, None) }
    }

    /// People who all have their camera on: 30 frames a second in layers of 250 kbit/s, 500 kbit/s and 1.5 Mbit/s. Not one of [`ALL`]: what
    /// has to come depends on what is looked at.
    pub(crate) const fn cameras(name: &'static str, title: &'static str, people: usize) -> Self {
        Self { receivers: people, layers: Some([1, 2, 6]), payload: 1050, ..Self::share(name, title, people, None) }
    }

    /// A large call of Mattermost's, at the rates of its own sizing tests: two who speak, and a screen of 1.6 Mbit/s at 15 frames a second.
    pub(crate) const fn plugin_call(name: &'static str, title: &'static str, receivers: usize) -> Self {
        Self { screen: true, receivers, ..Self::speech(name, title, 3, None) }
    }

    /// A screen at the same rate beside one who speaks.
    pub(crate) const fn talk_and_screen(name: &'static str, title: &'static str, receivers: usize) -> Self {
        Self { publishers: 2, ..Self::plugin_call(name, title, receivers) }
    }

    /// So many who speak to so many.
    pub(crate) const fn talks(name: &'static str, title: &'static str, publishers: usize, receivers: usize) -> Self {
        Self { receivers, ..Self::speech(name, title, publishers, None) }
    }

    /// The same with publishers that can send again what is lost.
    pub(crate) const fn with_repair(self) -> Self {
        Self { repair: true, ..self }
    }

    /// What one publisher sends.
    pub(crate) const fn of(self, publisher: usize) -> Self {
        if self.screen && publisher + 1 == self.publishers {
            return Self { video: true, payload: 1130, burst: 12, every: Duration::from_micros(66_667), ..self };
        }
        self
    }

    /// The same for fewer or more.
    pub(crate) const fn to(self, receivers: usize) -> Self {
        Self { receivers, ..self }
    }

    /// The same at another rate, packets a second to all receivers, of publishers that are all alike.
    pub(crate) fn at(self, per_second: f64) -> Self {
        Self { every: self.every.mul_f64(self.forwarded_per_second() / per_second), ..self }
    }

    /// Who publishes in one call.
    pub(crate) fn talkers(&self) -> usize {
        self.publishers / self.calls
    }

    /// What has to come when so many packets were sent.
    pub(crate) fn expected(&self, sent: u64) -> u64 {
        sent * (self.receivers / self.calls) as u64
    }

    /// Packets a second to all receivers.
    pub(crate) fn forwarded_per_second(&self) -> f64 {
        let published: f64 =
            (0..self.publishers).map(|publisher| self.of(publisher)).map(|of| of.burst as f64 / of.every.as_secs_f64()).sum();
        published * (self.receivers / self.calls) as f64
    }

    /// The bar for our CPU against another server's.
    pub(crate) fn bar(&self, rival: &str) -> Option<f64> {
        match (self.target.is_some(), self.video || self.screen, rival) {
            (false, ..) if self.calls > 1 && rival != "janus" => Some(0.2),
            (false, ..) => None,
            (true, true, _) => Some(0.2),
            (true, false, "janus") => Some(0.4),
            (true, false, _) => Some(0.25),
        }
    }
}

/// Who hears and sees it all.
const RECEIVERS: usize = 50;

/// One call, and speech or pictures alone, each with a bar against the ideal forwarder.
pub(crate) const BARRED: [Scenario; 4] = [
    Scenario::speech("audio-10-50", "10 speakers to 50", 10, Some(1.15)),
    Scenario::speech("audio-20-50", "20 speakers to 50", 20, Some(1.15)),
    Scenario::share("share-1-50", "1 screen share to 50", 1, Some(1.15)),
    Scenario::share("share-3-50", "3 screen shares to 50", 3, Some(1.15)),
];

/// All of them.
pub(crate) const ALL: [Scenario; 8] = {
    let [ten, twenty, share, three] = BARRED;
    [
        Scenario::talks("audio-2-50", "2 speakers to 50", 2, RECEIVERS),
        ten,
        share,
        twenty,
        three,
        Scenario::pairs("pairs-50", "50 calls of two, one speaks", 50),
        Scenario::tens("tens-10", "10 calls of ten, two speak in each", 10),
        Scenario {
            target: Some(1.15),
            ..Scenario::talk_and_screen("talk-screen-50", "1 speaker and 1 screen of 1.6 Mbit/s to 50", RECEIVERS)
        },
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_all_receivers_get() {
        for scenario in ALL.into_iter().filter(|scenario| !scenario.screen) {
            assert!((scenario.at(40_000.0).forwarded_per_second() - 40_000.0).abs() < 1.0, "{scenario:?}");
        }
        let call = Scenario::plugin_call("call", "a call", 997);
        assert_eq!([0, 1, 2].map(|publisher| call.of(publisher).video), [false, false, true]);
        assert_eq!((call.talkers(), call.expected(10)), (3, 9970));
        // 50 of the voice and 180 of the screen.
        assert!((ALL[7].forwarded_per_second() - 50.0 * 230.0).abs() < 1.0);
        let tens = ALL[6];
        assert_eq!((tens.talkers(), tens.expected(10)), (2, 80));
        let pairs = ALL[5];
        assert_eq!((pairs.talkers(), pairs.expected(10)), (1, 10));
        assert_eq!((ALL[1].talkers(), ALL[1].expected(10)), (10, 500));
        assert_eq!(["livekit", "janus"].map(|rival| pairs.bar(rival)), [Some(0.2), None]);
        assert_eq!(["livekit", "janus"].map(|rival| tens.bar(rival)), [Some(0.25), Some(0.4)]);
        assert_eq!(ALL[7].bar("janus"), Some(0.2));
    }
}
