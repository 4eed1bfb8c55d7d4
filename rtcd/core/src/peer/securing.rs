//! DTLS driven: records in and out, keys to SRTP, application data to SCTP.

use std::time::Instant;

use super::TransportKey;
use super::connect::State;
use super::dtls::{DtlsError, DtlsSession, FromDtls};
use super::transport::Keys;
use crate::core::Core;
use crate::counters::Count;
use crate::ids::{Channel, Side};
use crate::negotiate::DtlsRole;
use crate::output::{EndReason, Signal, Step};
use crate::sctp::{Labels, Sctp, SctpOutput};
use crate::srtp::{Inbound, Outbound, split_keying_material};
use crate::timers::Timer;
use crate::verdict::Verdict;

impl Core {
    /// Both descriptions and an address are there: as the client, begin.
    pub(crate) fn begin_dtls(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.destination().is_some() && transport.dtls.as_ref().is_some_and(|dtls| dtls.role() == DtlsRole::Client) {
            self.drive_dtls(now, key, |dtls| dtls.handle_timeout(now));
        }
    }

    /// Makes the session once the other side's description is known.
    pub(crate) fn prepare_dtls(&mut self, now: Instant, key: TransportKey, role: DtlsRole, fingerprint: [u8; 32]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.dtls.is_none() {
            transport.dtls = Some(DtlsSession::new(&self.dtls, role, fingerprint, now));
        }
    }

    /// A record from a proved address.
    pub(crate) fn receive_dtls(&mut self, now: Instant, key: TransportKey, record: &[u8]) {
        if let Some(transport) = self.transports.get_mut(key) {
            transport.evidence.dtls_records += 1;
        }
        if self.transports.get(key).is_none_or(|transport| transport.dtls.is_none()) {
            // The answer is still on its way; the client sends again.
            self.counters.one(Count::DtlsUnexpected);
            return;
        }
        self.drive_dtls(now, key, |dtls| dtls.handle(now, record));
    }

    /// DTLS asked to be woken.
    pub(crate) fn dtls_timeout(&mut self, now: Instant, key: TransportKey) {
        self.drive_dtls(now, key, |dtls| dtls.handle_timeout(now));
    }

    /// SCTP asked to be woken.
    pub(crate) fn sctp_timeout(&mut self, now: Instant, key: TransportKey) {
        if let Some(sctp) = self.transports.get_mut(key).and_then(|transport| transport.sctp.as_mut()) {
            sctp.handle_timeout(now);
        }
        self.drive_sctp(now, key);
    }

    fn drive_dtls(&mut self, now: Instant, key: TransportKey, act: impl FnOnce(&mut DtlsSession) -> Result<(), DtlsError>) {
        let mut keys = None;
        let mut data = Vec::new();
        let mut closed = false;
        let result = {
            let (transports, outbox) = (&mut self.transports, &mut self.outbox);
            let Some(transport) = transports.get_mut(key) else { return };
            let destination = transport.destination();
            let Some(dtls) = &mut transport.dtls else { return };
            act(dtls).and_then(|()| {
                dtls.poll(|out| match out {
                    FromDtls::Packet(packet) => {
                        if let Some(link) = destination {
                            outbox.datagram(link, packet);
                        }
                    }
                    FromDtls::Keys(profile, material) => keys = Some((profile, material)),
                    FromDtls::Data(packet) => data.push(packet.to_vec()),
                    FromDtls::Closed => closed = true,
                })
            })
        };
        match result {
            Ok(Some(at)) => {
                if let Some(transport) = self.transports.get_mut(key) {
                    self.timers.set(&mut transport.alarms.dtls, Timer::Dtls(key), at);
                }
            }
            Ok(None) => {}
            Err(error) => return self.dtls_failed(now, key, error),
        }
        if let Some((profile, material)) = keys {
            self.secured(now, key, profile, &material);
        }
        for packet in data {
            if let Some(sctp) = self.transports.get_mut(key).and_then(|transport| transport.sctp.as_mut()) {
                sctp.handle(now, &packet);
            }
            self.drive_sctp(now, key);
        }
        if closed {
            self.closed_by_client(now, key);
        }
    }

    fn secured(&mut self, now: Instant, key: TransportKey, profile: crate::srtp::Profile, material: &[u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(dtls) = &transport.dtls else { return };
        let version = dtls.version();
        let keys = split_keying_material(profile, material).and_then(|(client, server)| {
            let (theirs, ours) = match dtls.role() {
                DtlsRole::Server => (client, server),
                DtlsRole::Client => (server, client),
            };
            Ok(Keys { inbound: Inbound::new(&theirs)?, outbound: Outbound::new(&ours)?, profile, swept_at: now })
        });
        match keys {
            Ok(keys) => transport.keys = Some(keys),
            Err(_) => return self.dtls_failed(now, key, DtlsError::Failed),
        }
        self.counters.one(Count::DtlsDone);
        self.reached(key, Step::DtlsDone, format!("DTLS {version}, {}", profile.name()));
        self.enter(now, key, State::Live);
        self.begin_sctp(now, key);
        self.transport_is_live(now, key);
    }

    /// Data channels begin when DTLS stands and both sides have the section.
    pub(crate) fn begin_sctp(&mut self, now: Instant, key: TransportKey) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if transport.keys.is_none() || transport.sctp.is_some() {
            return;
        }
        let (Some(_), Some(dtls)) = (transport.data, &transport.dtls) else { return };
        let labels = if transport.negotiator.is_mutual() { Labels::Any } else { Labels::LiveKit };
        let mut sctp = Sctp::new(dtls.role() == DtlsRole::Client, labels);
        // On the transport we offer, the channels are ours to open; on the client's it opens them.
        if transport.side == Side::Subscribe {
            for channel in [Channel::Reliable, Channel::Lossy, Channel::DataTrack] {
                sctp.open_channel(channel);
            }
        }
        transport.sctp = Some(Box::new(sctp));
        self.drive_sctp(now, key);
    }

    /// Moves what SCTP has ready into DTLS, and messages to the call.
    pub(crate) fn drive_sctp(&mut self, now: Instant, key: TransportKey) {
        let mut messages = Vec::new();
        let mut opened = Vec::new();
        let mut failed = None;
        let mut lost = false;
        let (dropped, delivered);
        {
            let (transports, outbox, timers) = (&mut self.transports, &mut self.outbox, &mut self.timers);
            let Some(transport) = transports.get_mut(key) else { return };
            let destination = transport.destination();
            let (Some(sctp), Some(dtls)) = (&mut transport.sctp, &mut transport.dtls) else { return };
            while let Some(output) = sctp.poll(now) {
                match output {
                    SctpOutput::Send(packet) => {
                        // DTLS queues only a few records, so each is taken out at once.
                        let sent = dtls.send(&packet).and_then(|()| {
                            dtls.poll(|out| {
                                if let (FromDtls::Packet(packet), Some(link)) = (out, destination) {
                                    outbox.datagram(link, packet);
                                }
                            })
                        });
                        if let Err(error) = sent {
                            failed = Some(error);
                        }
                    }
                    SctpOutput::Message { channel, text, payload } => messages.push((channel, text, payload)),
                    SctpOutput::Open { channel, .. } => opened.extend(channel),
                    SctpOutput::Closed => lost = true,
                }
            }
            dropped = sctp.take_dropped();
            delivered = transport.awaits_delivery && (lost || sctp.is_delivered(Channel::Reliable));
            transport.awaits_delivery &= !delivered;
            let next = sctp.poll_timeout();
            if lost {
                transport.sctp = None;
            }
            match next {
                Some(at) => timers.set(&mut transport.alarms.sctp, Timer::Sctp(key), at.max(now)),
                None => transport.alarms.sctp.clear(),
            }
        }
        self.counters.add(Count::DataTrackDropped, dropped);
        for channel in opened {
            self.data_open(key, channel);
        }
        for (channel, text, payload) in messages {
            self.message_in(now, key, channel, text, payload);
        }
        if delivered && let Some(peer) = self.transports.get(key).and_then(|transport| self.peers.get(transport.peer)) {
            self.outbox.signal(&peer.id, Signal::Delivered);
        }
        if let Some(error) = failed {
            self.dtls_failed(now, key, error);
        }
    }

    fn dtls_failed(&mut self, now: Instant, key: TransportKey, error: DtlsError) {
        let (count, why) = match error {
            DtlsError::Failed => (Count::DtlsFailed, "DTLS failed"),
            DtlsError::Fingerprint => (Count::DtlsBadFingerprint, "the DTLS certificate is not the one named in the SDP"),
        };
        self.counters.one(count);
        let verdict = match error {
            DtlsError::Failed => Verdict::HandshakeFailed,
            DtlsError::Fingerprint => Verdict::WrongCertificate,
        };
        self.condemn(key, Some(verdict));
        if let Some(transport) = self.transports.get_mut(key)
            && let Some(error) = transport.dtls.as_mut().and_then(DtlsSession::take_error)
        {
            transport.evidence.dtls_error = Some(error);
        }
        let Some(peer) = self.transports.get(key).map(|transport| transport.peer) else { return };
        self.reached(key, Step::Lost, why.to_owned());
        self.end_peer(now, peer, EndReason::Protocol);
    }

    /// The client closed the transport (a page that is left does): wait whether signalling brings it back.
    fn closed_by_client(&mut self, now: Instant, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key) {
            transport.evidence.closed_by_client = true;
            transport.keys = None;
            transport.dtls = None;
            transport.sctp = None;
        }
        self.enter(now, key, State::Quiet);
    }
}
