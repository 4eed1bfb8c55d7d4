//! A synthetic call: real speech, encoded as browsers do, as the media tap gives it.

use conclave_proto::v1::{self as pb, tap_item::Item};

pub fn item(at_us: i64, item: Item) -> pb::TapItem {
    pb::TapItem { at_us, item: Some(item) }
}

/// Opus as Chromium sends it: 48 kHz, mono, 20 ms, FEC on.
pub fn opus_packets(samples_16k: &[f32]) -> Vec<Vec<u8>> {
    let samples = offload_worker::audio::wav::resample(samples_16k, 16_000, 48_000);
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
    encoder.set_inband_fec(true).unwrap();
    encoder.set_packet_loss_perc(10).unwrap();
    samples
        .chunks(960)
        .map(|frame| {
            let mut frame = frame.to_vec();
            frame.resize(960, 0.0);
            encoder.encode_vec_float(&frame, 1_275).unwrap()
        })
        .collect()
}

pub fn opened(at_us: i64) -> pb::TapItem {
    item(at_us, Item::Opened(pb::TapOpened { media_node_id: "test".into(), call_started_at_us: at_us }))
}

pub fn participant(at_us: i64, identity: &str) -> pb::TapItem {
    item(at_us, Item::Participant(pb::TapParticipant { identity: identity.into(), display_name: name(identity), present: true }))
}

pub fn name(identity: &str) -> String {
    identity.to_uppercase()
}

pub fn audio_track(at_us: i64, identity: &str) -> pb::TapItem {
    item(
        at_us,
        Item::Track(pb::TapTrack {
            track_sid: sid(identity),
            identity: identity.into(),
            display_name: name(identity),
            kind: pb::TrackKind::Audio.into(),
            source: pb::TrackSource::Microphone.into(),
            mime: "audio/opus".into(),
            clock_rate: 48_000,
            channels: 2,
            payload_type: 111,
            fmtp: "minptime=10;useinbandfec=1".into(),
            ..pb::TapTrack::default()
        }),
    )
}

/// Its reader asks for a key frame when it comes to this item, and so tells that it has read all before.
pub fn screen_track(at_us: i64, identity: &str) -> pb::TapItem {
    item(
        at_us,
        Item::Track(pb::TapTrack {
            track_sid: format!("TR_screen_{identity}"),
            identity: identity.into(),
            display_name: name(identity),
            kind: pb::TrackKind::Video.into(),
            source: pb::TrackSource::ScreenShare.into(),
            mime: "video/VP8".into(),
            clock_rate: 90_000,
            channels: 0,
            payload_type: 96,
            fmtp: String::new(),
            width: 1280,
            height: 720,
            ..pb::TapTrack::default()
        }),
    )
}

pub fn sid(identity: &str) -> String {
    format!("TR_{identity}")
}

/// One packet of a track that started at `start_us`, the n-th.
pub fn audio_packet(start_us: i64, identity: &str, n: usize, payload: &[u8]) -> pb::TapItem {
    // Arrival jitters as on a real network, up to 12 ms, always late.
    let at_us = start_us + n as i64 * 20_000 + [0, 4_000, 12_000, 1_000, 7_000][n % 5];
    let packet = pb::TapPacket {
        at_us,
        seq: 1_000 + n as u64,
        timestamp: 90_000 + n as u64 * 960,
        marker: n == 0,
        payload: payload.to_vec().into(),
        key_frame: false,
        audio_level: 30,
    };
    item(at_us, Item::Packets(pb::TapPackets { track_sid: sid(identity), packets: vec![packet] }))
}

pub fn gap(at_us: i64, identity: &str, n: usize) -> pb::TapItem {
    let reason = pb::tap_gap::Reason::Network.into();
    item(at_us, Item::Gap(pb::TapGap { track_sid: sid(identity), from_seq: 1_000 + n as u64, packets: 1, reason }))
}

pub fn call_ended(at_us: i64) -> pb::TapItem {
    item(at_us, Item::CallEnded(pb::TapCallEnded {}))
}

/// The meeting as tap items in order of arrival, every 50th packet of each track lost on the network.
pub fn meeting(start_us: i64) -> (Vec<pb::TapItem>, i64) {
    let (tracks, _) = super::meeting();
    let mut items = vec![opened(start_us)];
    let mut timed = Vec::new();
    let mut end_us = start_us;
    for (identity, samples) in &tracks {
        items.push(participant(start_us, identity));
        items.push(audio_track(start_us, identity));
        for (n, packet) in opus_packets(samples).iter().enumerate() {
            let made =
                if n % 50 == 49 { gap(start_us + n as i64 * 20_000, identity, n) } else { audio_packet(start_us, identity, n, packet) };
            end_us = end_us.max(made.at_us);
            timed.push(made);
        }
    }
    timed.sort_by_key(|item| item.at_us);
    items.extend(timed);
    (items, end_us)
}
