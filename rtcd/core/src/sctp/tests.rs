use super::*;
use std::time::Duration;

/// A browser's side: it sends the INIT.
struct Browser {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
}

impl Browser {
    fn new() -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None);
        let config = sctp_proto::ClientConfig::default();
        let (handle, association) = endpoint.connect(config, NOWHERE).unwrap();
        Self { endpoint, handle, association }
    }

    fn opens(&mut self, label: &str, channel: Channel) {
        let mut stream = self.association.open_stream(0, Ppi::Binary).unwrap();
        stream.write_with_ppi(&dcep::open(label, channel), Ppi::Dcep).unwrap();
    }

    fn packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = VecDeque::new();
        while let Some(transmit) = self.association.poll_transmit(now) {
            Sctp::raw(transmit.payload, &mut out);
        }
        out.into_iter().map(|output| if let SctpOutput::Send(bytes) = output { bytes } else { unreachable!() }).collect()
    }

    fn handle(&mut self, now: Instant, bytes: &[u8]) {
        if let Some((handle, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, NOWHERE, None, None, Bytes::copy_from_slice(bytes))
        {
            assert_eq!(handle, self.handle);
            self.association.handle_event(event);
        }
    }
}

/// Carries packets both ways until both are quiet; returns what the server side told.
fn settle(now: &mut Instant, server: &mut Sctp, browser: &mut Browser) -> Vec<SctpOutput> {
    let mut told = Vec::new();
    for _ in 0..200 {
        *now += Duration::from_millis(10);
        browser.association.handle_timeout(*now);
        server.handle_timeout(*now);
        for packet in browser.packets(*now) {
            server.handle(*now, &packet);
        }
        while let Some(output) = server.poll(*now) {
            match output {
                SctpOutput::Send(packet) => browser.handle(*now, &packet),
                other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => told.push(other),
            }
        }
    }
    told
}

impl Sctp {
    /// Bytes kept for the other side.
    fn waiting(&mut self) -> usize {
        let Some((_, association)) = &mut self.association else { return 0 };
        self.channels.iter().map(|channel| association.stream(channel.id).unwrap().buffered_amount().unwrap_or_default()).sum()
    }
}

#[test]
fn the_browser_opens_its_channels_and_messages_go_both_ways() {
    let mut now = Instant::now();
    let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
    settle(&mut now, &mut server, &mut browser);
    for (id, channel) in [(0, Channel::Reliable), (2, Channel::Lossy), (4, Channel::DataTrack)] {
        let mut stream = browser.association.open_stream(id, Ppi::Binary).unwrap();
        stream.write_with_ppi(&dcep::open(channel.label(), channel), Ppi::Dcep).unwrap();
    }
    let told = settle(&mut now, &mut server, &mut browser);
    assert!(told.contains(&SctpOutput::Open { label: RELIABLE.to_owned(), channel: Some(Channel::Reliable) }));
    assert!(told.contains(&SctpOutput::Open { label: LOSSY.to_owned(), channel: Some(Channel::Lossy) }));

    assert!(told.contains(&SctpOutput::Open { label: DATA_TRACK.to_owned(), channel: Some(Channel::DataTrack) }));

    for (id, channel) in [(2, Channel::Lossy), (4, Channel::DataTrack)] {
        browser.association.stream(id).unwrap().write_with_ppi(b"hello", Ppi::Binary).unwrap();
        let told = settle(&mut now, &mut server, &mut browser);
        assert_eq!(told, [SctpOutput::Message { channel, text: false, payload: b"hello".to_vec() }]);
    }

    server.send(Channel::Reliable, false, &vec![7; 40_000]).unwrap();
    settle(&mut now, &mut server, &mut browser);
    let chunks = loop {
        let chunks = browser.association.stream(0).unwrap().read_sctp().unwrap().unwrap();
        if chunks.ppi == Ppi::Binary {
            break chunks;
        }
    };
    assert_eq!(chunks.len(), 40_000);
}

#[test]
fn the_server_opens_channels_of_its_own_with_odd_ids() {
    let mut now = Instant::now();
    let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
    server.open_channel(Channel::Reliable);
    server.open_channel(Channel::Lossy);
    server.open_channel(Channel::DataTrack);
    assert_eq!(server.send(Channel::Reliable, false, b"early"), Err(SendError::NotOpen));
    settle(&mut now, &mut server, &mut browser);
    for id in [1, 3, 5] {
        let mut stream = browser.association.stream(id).unwrap();
        let chunks = stream.read_sctp().unwrap().unwrap();
        assert_eq!(chunks.ppi, Ppi::Dcep);
        stream.write_with_ppi(&dcep::ACK, Ppi::Dcep).unwrap();
    }
    let told = settle(&mut now, &mut server, &mut browser);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!([Channel::Reliable, Channel::Lossy, Channel::DataTrack].into_iter().all(|channel| server.is_open(channel)));
    server.send(Channel::Lossy, false, b"now").unwrap();
}

/// One way; what is told on it beside packets comes at the end of `told`.
fn carry(now: Instant, from: &mut Sctp, to: &mut Sctp, told: &mut Vec<SctpOutput>) {
    while let Some(output) = from.poll(now) {
        match output {
            SctpOutput::Send(packet) => to.handle(now, &packet),
            other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => told.push(other),
        }
    }
}

#[test]
fn a_client_begins_and_opens_its_channel() {
    let mut now = Instant::now();
    let (mut client, mut server) = (Sctp::new(true, Labels::Any), Sctp::new(false, Labels::Any));
    client.open_labelled("calls-dc", Channel::Reliable);
    client.begin();
    let mut told = Vec::new();
    for round in 0..40 {
        now += Duration::from_millis(10);
        client.handle_timeout(now);
        server.handle_timeout(now);
        if round == 20 {
            client.send(Channel::Reliable, false, b"ping").unwrap();
        }
        carry(now, &mut client, &mut server, &mut told);
        carry(now, &mut server, &mut client, &mut told);
    }
    let open = || SctpOutput::Open { label: "calls-dc".to_owned(), channel: Some(Channel::Reliable) };
    assert_eq!(told, [open(), open(), SctpOutput::Message { channel: Channel::Reliable, text: false, payload: b"ping".to_vec() }]);
}

#[test]
fn a_peer_that_does_not_read_fills_its_own_buffer_only() {
    let mut now = Instant::now();
    let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
    settle(&mut now, &mut server, &mut browser);
    browser.opens(RELIABLE, Channel::Reliable);
    settle(&mut now, &mut server, &mut browser);
    let mut taken = 0;
    while server.send(Channel::Reliable, false, &[1; 10_000]).is_ok() {
        taken += 10_000;
        assert!(taken <= DATA_BUFFERED_MAX, "the bound does not hold");
    }
    assert_eq!(server.send(Channel::Reliable, false, &[1; 10_000]), Err(SendError::Full));
    assert_eq!(server.send(Channel::Reliable, false, &vec![1; DATA_MESSAGE_LEN_MAX + 1]), Err(SendError::TooLong));
}

/// Attack class S-02: an hour of messages, one a second and bursts, for a peer that reads nothing of them: one that goes on to
/// acknowledge until its window is shut, and one that acknowledges nothing (who is really gone is ended by ICE).
#[test]
fn an_hour_without_reading_holds_one_buffer() {
    for silent in [false, true] {
        let mut now = Instant::now();
        let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
        settle(&mut now, &mut server, &mut browser);
        browser.opens(RELIABLE, Channel::Reliable);
        settle(&mut now, &mut server, &mut browser);
        let mut refused = 0;
        for second in 0..3600 {
            now += Duration::from_secs(1);
            for _ in 0..if second % 60 == 0 { 100 } else { 1 } {
                refused += usize::from(server.send(Channel::Reliable, false, &[1; 10_000]).is_err());
            }
            server.handle_timeout(now);
            browser.association.handle_timeout(now);
            if !silent {
                for packet in browser.packets(now) {
                    server.handle(now, &packet);
                }
            }
            let mut left = Vec::new();
            while let Some(output) = server.poll(now) {
                match output {
                    SctpOutput::Send(packet) => left.push(packet),
                    other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => panic!("{other:?}"),
                }
            }
            assert!(left.iter().map(Vec::len).sum::<usize>() <= 2 * DATA_BUFFERED_MAX, "second {second}");
            if !silent {
                left.iter().for_each(|packet| browser.handle(now, packet));
            }
            assert!(server.waiting() <= DATA_BUFFERED_MAX, "second {second}: {}", server.waiting());
        }
        assert!(refused > 3000, "{refused} messages found no room");
        assert!(server.waiting() > DATA_BUFFERED_MAX / 2, "what was taken is kept for it: {}", server.waiting());
    }
}

/// Attack class S-03: more channels than one may have, messages that are too long.
#[test]
fn channels_streams_and_messages_are_bounded() {
    let mut now = Instant::now();
    let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
    settle(&mut now, &mut server, &mut browser);
    let mut told = Vec::new();
    for id in (0..2 * (DATA_STREAMS_MAX - 1) as u16).step_by(2) {
        let Ok(mut stream) = browser.association.open_stream(id, Ppi::Binary) else { continue };
        let label = if id % 4 == 0 { RELIABLE.to_owned() } else { format!("channel {id}") };
        stream.write_with_ppi(&dcep::open(&label, Channel::Reliable), Ppi::Dcep).unwrap();
        if id % 10 == 0 {
            told.extend(settle(&mut now, &mut server, &mut browser));
        }
    }
    told.extend(settle(&mut now, &mut server, &mut browser));
    let opened = told.iter().filter(|output| matches!(output, SctpOutput::Open { .. })).count();
    assert_eq!(opened, DATA_CHANNELS_MAX);
    assert_eq!(server.channels.len(), DATA_CHANNELS_MAX);
    // A stream that is no channel carries nothing, a message that is too long does not arrive, and the rest goes on.
    for (id, len) in [(50, 100), (0, DATA_MESSAGE_LEN_MAX + 1), (0, 100)] {
        let _ = browser.association.stream(id).unwrap().write_with_ppi(&vec![3; len], Ppi::Binary);
        told = settle(&mut now, &mut server, &mut browser);
        let messages = told.iter().filter(|output| matches!(output, SctpOutput::Message { .. })).count();
        assert_eq!(messages, usize::from(len == 100 && id == 0), "{id} {len}");
    }
}

/// Attack class S-03: a stream for every number. SCTP walks all of them for each chunk that comes in.
#[test]
fn who_begins_ever_more_streams_loses_its_channels() {
    let mut now = Instant::now();
    let (mut server, mut browser) = (Sctp::new(false, Labels::LiveKit), Browser::new());
    settle(&mut now, &mut server, &mut browser);
    let (mut told, mut most) = (Vec::new(), 0);
    for id in 0..5000 {
        let Ok(mut stream) = browser.association.open_stream(id, Ppi::Binary) else { break };
        let _ = stream.write_with_ppi(b"x", Ppi::Binary);
        if id % 50 == 49 {
            now += Duration::from_millis(10);
            for packet in browser.packets(now) {
                server.handle(now, &packet);
                most = most.max(server.streams());
            }
            told.extend(std::iter::from_fn(|| server.poll(now)).filter(|output| !matches!(output, SctpOutput::Send(_))));
        }
    }
    assert_eq!(told, [SctpOutput::Closed]);
    // Those of one datagram come before anybody can say that it is enough.
    assert!(most <= DATA_STREAMS_MAX, "{most}");
}

/// Both ends of an association with all three channels, opened by the server.
fn pair() -> (Instant, Sctp, Sctp) {
    let mut now = Instant::now();
    let (mut client, mut server) = (Sctp::new(true, Labels::LiveKit), Sctp::new(false, Labels::LiveKit));
    for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
        server.open_channel(channel);
    }
    client.begin();
    for _ in 0..20 {
        now += Duration::from_millis(10);
        client.handle_timeout(now);
        server.handle_timeout(now);
        carry(now, &mut client, &mut server, &mut Vec::new());
        carry(now, &mut server, &mut client, &mut Vec::new());
    }
    assert!(client.is_open(Channel::DataTrack) && server.is_open(Channel::DataTrack));
    (now, client, server)
}

fn track_packet(frame: u16, len: usize) -> Bytes {
    let mut packet = vec![0; len];
    packet[6..8].copy_from_slice(&frame.to_be_bytes());
    packet.into()
}

#[test]
fn a_peer_that_reads_nothing_holds_the_newest_packets_of_data_tracks_and_no_more() {
    let (mut now, mut client, mut server) = pair();
    for frame in 0..2000_u16 {
        now += Duration::from_millis(1);
        server.send_packet(now, track_packet(frame, 1000)).unwrap();
        server.handle_timeout(now);
        while server.poll(now).is_some() {}
        assert!(server.waiting() <= 8 * 1024, "what SCTP may send at once, and a packet: {}", server.waiting());
    }
    let dropped = server.take_dropped();
    assert!((1500..2000).contains(&dropped), "{dropped}");
    // What it gets once it reads again is what is new.
    let (mut told, sent_until) = (Vec::new(), now);
    for _ in 0..2000 {
        now += Duration::from_millis(10);
        client.handle_timeout(now);
        server.handle_timeout(now);
        if now.duration_since(sent_until) > Duration::from_secs(15) {
            let _ = server.send_packet(now, track_packet(7777, 1000));
        }
        carry(now, &mut server, &mut client, &mut Vec::new());
        carry(now, &mut client, &mut server, &mut told);
    }
    let frames: Vec<u16> = told
        .iter()
        .filter_map(|output| match output {
            SctpOutput::Message { channel: Channel::DataTrack, payload, .. } => crate::data_track::frame(payload).map(|(_, frame)| frame),
            SctpOutput::Message { .. } | SctpOutput::Send(_) | SctpOutput::Open { .. } | SctpOutput::Closed => None,
        })
        .collect();
    assert!(frames.contains(&7777), "{frames:?}");
}

/// 8 kB a pass for ten seconds from data tracks, and a reliable message of 40 kB a second: on a way of 2 kB a pass both get their share.
#[test]
fn data_tracks_and_reliable_messages_do_not_starve_each_other() {
    let (mut now, mut client, mut server) = pair();
    let (mut queue, mut told, mut given) = (VecDeque::new(), Vec::new(), 0);
    for pass in 0..1000_u16 {
        now += Duration::from_millis(10);
        for part in 0..8 {
            server.send_packet(now, track_packet(pass * 8 + part, 1000)).unwrap();
        }
        if pass % 100 == 0 && server.send(Channel::Reliable, false, &vec![7; 40_000]).is_ok() {
            given += 1;
        }
        server.handle_timeout(now);
        while let Some(output) = server.poll(now) {
            if let SctpOutput::Send(packet) = output {
                queue.push_back(packet);
            }
        }
        let mut room = 2000;
        while let Some(packet) = queue.front().filter(|packet| packet.len() <= room) {
            room -= packet.len();
            client.handle(now, packet);
            queue.pop_front();
        }
        client.handle_timeout(now);
        while let Some(output) = client.poll(now) {
            match output {
                SctpOutput::Send(packet) => server.handle(now, &packet),
                other @ (SctpOutput::Open { .. } | SctpOutput::Message { .. } | SctpOutput::Closed) => told.push(other),
            }
        }
    }
    let of =
        |wanted: Channel| told.iter().filter(|output| matches!(output, SctpOutput::Message { channel, .. } if *channel == wanted)).count();
    assert_eq!(given, 10);
    assert!(of(Channel::Reliable) >= 7, "{} reliable messages of {given}", of(Channel::Reliable));
    assert!(of(Channel::DataTrack) >= 500, "{} packets", of(Channel::DataTrack));
    assert!(server.take_dropped() > 1000);
}

#[test]
fn garbage_changes_nothing() {
    let now = Instant::now();
    let mut server = Sctp::new(false, Labels::LiveKit);
    for length in 0..200 {
        server.handle(now, &vec![0xa5; length]);
    }
    assert_eq!(server.poll(now), None);
}
