//! The whole core against arbitrary inputs: two peers of one call, one of them hostile.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::signed;
use crate::config::{Certificate, CoreConfig};
use crate::ids::{CallId, Channel, Kind, Link, PeerId, Source, TapId, TrackId};
use crate::input::{Join, Publish, TapScope, TrackSettings, Transports};
use crate::output::Signal;
use crate::wire::Reader;
use crate::{Core, Input, Output};

/// Inputs of one run: each costs up to a millisecond (SDP), a run should not take seconds.
const STEPS_MAX: usize = 64;

fn certificate() -> &'static Certificate {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    CERTIFICATE.get_or_init(|| {
        let made = dimpl::certificate::generate_self_signed_certificate().expect("a certificate");
        Certificate { certificate_der: made.certificate, private_key_der: made.private_key }
    })
}

struct Machine {
    core: Core,
    now: Instant,
    wake: Option<Instant>,
    // ICE credentials that answers and offers gave, newest last: `(ufrag, password)`.
    credentials: Vec<(String, String)>,
    // Where a signed check came from; nothing may go anywhere else.
    checked: HashSet<Link>,
    // The other side's fragment, of its last description.
    remote: String,
    panics: u64,
    sent: u64,
}

fn peer(n: u8) -> PeerId {
    PeerId::new(if n & 1 == 0 { "PA_honest" } else { "PA_hostile" }).expect("a name")
}

fn track(n: u8) -> TrackId {
    TrackId::new(["TR_a", "TR_b", "TR_c", "TR_d"][usize::from(n & 3)]).expect("a name")
}

fn value(sdp: &str, name: &str) -> Option<String> {
    sdp.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

fn link(n: u8) -> Link {
    let remote = ([198, 51, 100, 1 + (n >> 4 & 3)], 1000 + u16::from(n & 15)).into();
    if n & 0x40 == 0 { Link::Udp { local: ([192, 0, 2, 1], 8443).into(), remote } } else { Link::Tcp { connection: u64::from(n), remote } }
}

impl Machine {
    fn new() -> Self {
        let now = Instant::now();
        let config = CoreConfig {
            shard: 0,
            shards: 1,
            seed: [7; 32],
            epoch: (now, 1_700_000_000_000_000),
            udp_candidates: vec![([192, 0, 2, 1], 8443).into()],
            tcp_candidates: Vec::new(),
            certificate: certificate().clone(),
            prefer_aes256: false,
            grace: Duration::from_secs(30),
            audio_top_n: 1,
            trains: true,
        };
        let core = Core::new(config);
        Self { core, now, wake: None, credentials: Vec::new(), checked: HashSet::new(), remote: String::new(), panics: 0, sent: 0 }
    }

    fn join(&mut self, who: u8, single: bool) {
        let call = CallId::new("acme/call").expect("a name");
        self.tell(Input::Join(Box::new(Join {
            call,
            peer: peer(who),
            audio_levels: false,
            transports: if single { Transports::Single } else { Transports::Two },
            can_publish: true,
            can_subscribe: true,
            can_publish_data: true,
            auto_subscribe: true,
            adaptive_stream: false,
            playout_delay: None,
        })));
    }

    fn tell(&mut self, input: Input<'_>) {
        self.core.handle(self.now, input);
        self.rest();
    }

    fn rest(&mut self) {
        for _ in 0..10_000 {
            match self.core.poll(self.now) {
                Output::Transmits(transmits) => {
                    for transmit in transmits {
                        assert!(self.checked.contains(&transmit.link), "sent to an address that proved nothing");
                        self.sent += 1;
                    }
                }
                Output::Signal { signal: Signal::Answer { sdp, .. } | Signal::Offer { sdp, .. }, .. } => {
                    self.credentials.extend(value(&sdp, "a=ice-ufrag:").zip(value(&sdp, "a=ice-pwd:")));
                }
                Output::Report { report, .. } => {
                    self.panics = report.counters.iter().find(|(name, _)| *name == "peers_ended_by_panic").map_or(0, |(_, count)| *count);
                }
                Output::Timeout(at) => {
                    self.wake = at;
                    return;
                }
                Output::Parcel { .. } | Output::RelayRequest { .. } | Output::Origin(_) => panic!("there is no other shard"),
                Output::Signal { .. }
                | Output::Event { .. }
                | Output::Data { .. }
                | Output::DataTrack { .. }
                | Output::Tap { .. }
                | Output::TapClosed { .. } => {}
            }
        }
        panic!("polling does not come to rest");
    }

    fn step(&mut self, what: u8, who: u8, bytes: &[u8]) {
        let first = bytes.first().copied().unwrap_or_default();
        match what % 16 {
            0 | 1 => {
                if let Ok(sdp) = std::str::from_utf8(bytes) {
                    self.remote = value(sdp, "a=ice-ufrag:").unwrap_or_default();
                    self.tell(Input::Offer { peer: peer(who), sdp, id: u32::from(what) });
                }
            }
            2 => {
                if let Ok(sdp) = std::str::from_utf8(bytes) {
                    self.tell(Input::Answer { peer: peer(who), sdp, id: u32::from(first) });
                }
            }
            3 | 4 => {
                let mut datagram = bytes.to_vec();
                self.tell(Input::Datagram { link: link(who), bytes: &mut datagram });
            }
            5 => {
                let Some((ufrag, password)) = self.credentials.iter().rev().nth(usize::from(first & 3)).cloned() else { return };
                let mut slot = [0u8; 512];
                if let Some(len) = signed(&mut slot, &ufrag, &self.remote, &password, bytes.get(1..).unwrap_or_default(), what & 16 != 0)
                    && let Some(datagram) = slot.get_mut(..len)
                {
                    self.checked.insert(link(who));
                    self.tell(Input::Datagram { link: link(who), bytes: datagram });
                }
            }
            6 => {
                self.now = match self.wake {
                    Some(at) if first & 1 == 0 => at.max(self.now),
                    Some(_) | None => self.now + Duration::from_millis(u64::from(first) * 50),
                };
                self.tell(Input::Timeout);
            }
            7 => {
                let kind = if first & 1 == 0 { Kind::Audio } else { Kind::Video };
                let cid = String::from_utf8_lossy(bytes.get(1..).unwrap_or_default()).into_owned();
                self.tell(Input::Publish(Box::new(Publish {
                    peer: peer(who),
                    track: track(first >> 1),
                    cid,
                    kind,
                    source: if first & 16 == 0 { Source::Unknown } else { Source::Microphone },
                    muted: first & 8 != 0,
                    layers: Vec::new(),
                    dtx: false,
                    stereo: false,
                    codec: None,
                    backup_of: (first & 32 != 0).then(|| track(first >> 2)),
                })));
            }
            8 => self.tell(Input::Mute { peer: peer(who), track: track(first), muted: first & 8 != 0 }),
            9 => self.tell(Input::Unpublish { peer: peer(who), track: track(first) }),
            10 => self.tell(Input::Subscribe { peer: peer(who), track: track(first), wanted: first & 8 != 0 }),
            11 => {
                let settings = TrackSettings {
                    disabled: first & 8 != 0,
                    layer_max: first >> 4,
                    width: u32::from(first) * 8,
                    height: u32::from(who) * 8,
                    fps: 0,
                    priority: u32::from(who),
                };
                self.tell(Input::TrackSettings { peer: peer(who), track: track(first), settings });
            }
            12 => self.tell(Input::LinkClosed { link: link(who) }),
            13 => match first % 4 {
                0 => self.tell(Input::Leave { peer: peer(who) }),
                1 => self.tell(Input::RestartIce { peer: peer(who) }),
                2 => self.tell(Input::Consent { peer: peer(who), granted: first & 8 != 0 }),
                _ => self.join(who, first & 8 != 0),
            },
            14 => {
                let (call, tap) = (CallId::new("acme/call").expect("a name"), TapId::new("tap").expect("a name"));
                match first % 3 {
                    0 => self.tell(Input::TapOpen {
                        call,
                        tap,
                        scope: TapScope { consent_needed: first & 8 != 0, audio: true, video: true, screen_only: false },
                    }),
                    1 => self.tell(Input::TapClose { tap }),
                    _ => self.tell(Input::TapKeyFrame { tap, track: track(who) }),
                }
            }
            _ if first & 12 == 12 => {
                let subscribers = [peer(first >> 4), peer(9)];
                let subscribers = if first & 1 == 0 { &subscribers[..] } else { &[] };
                self.tell(Input::DataRoute { peer: peer(who), publisher_handle: u16::from(first & 2), handle: 9, subscribers });
            }
            _ => {
                let to = [peer(who)];
                let call = CallId::new("acme/call").expect("a name");
                self.tell(Input::SendData {
                    call,
                    to: if first & 1 == 0 { &to } else { &[] },
                    channel: [Channel::Reliable, Channel::Lossy, Channel::DataTrack, Channel::Reliable][usize::from(first >> 1 & 3)],
                    text: false,
                    payload: bytes,
                });
            }
        }
    }
}

/// `[what, who or link, length (16 bits), bytes…]` per step.
pub fn core(data: &[u8]) {
    run(data);
}

fn run(data: &[u8]) -> Machine {
    let mut machine = Machine::new();
    machine.join(0, false);
    machine.join(1, data.first().is_some_and(|byte| byte & 0x80 != 0));
    let mut reader = Reader::new(data);
    for _ in 0..STEPS_MAX {
        let (Some(what), Some(who), Some(len)) = (reader.u8(), reader.u8(), reader.u16()) else { break };
        let bytes = reader.take(usize::from(len).min(reader.len())).unwrap_or_default();
        machine.step(what, who, bytes);
    }
    machine.tell(Input::Report { token: 1, diagnose: false });
    assert_eq!(machine.panics, 0, "a panic behind the catch");
    machine
}

/// Were nothing ever answered, the target would only look at the door.
#[cfg(test)]
#[test]
fn the_seed_gets_past_offer_and_check() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/core/publish_offer_check_handshake_leave");
    let machine = run(&std::fs::read(path).expect("the committed seed"));
    assert!(!machine.credentials.is_empty(), "no answer");
    assert!(machine.sent >= 2, "{} datagrams sent", machine.sent);
}
