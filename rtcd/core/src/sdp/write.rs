//! The model as text.

use std::fmt::{self, Display, Formatter, Write};

use super::model::{Codec, Description, Direction, Fingerprint, HashFunction, Media, MediaKind, Setup, TransportAttributes};

impl Display for Description {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", self.session_id, self.session_version)?;
        if self.ice_lite {
            f.write_str("a=ice-lite\r\n")?;
        }
        if self.extmap_allow_mixed {
            f.write_str("a=extmap-allow-mixed\r\n")?;
        }
        if !self.bundle.is_empty() {
            f.write_str("a=group:BUNDLE")?;
            for mid in &self.bundle {
                write!(f, " {mid}")?;
            }
            f.write_str("\r\n")?;
        }
        // Without it Firefox does not look at the msids.
        f.write_str("a=msid-semantic:WMS *\r\n")?;
        write_transport(f, &self.transport)?;
        self.media.iter().try_for_each(|media| write_media(f, media))
    }
}

fn write_transport(f: &mut Formatter<'_>, transport: &TransportAttributes) -> fmt::Result {
    if let Some(ufrag) = &transport.ice_ufrag {
        write!(f, "a=ice-ufrag:{ufrag}\r\n")?;
    }
    if let Some(pwd) = &transport.ice_pwd {
        write!(f, "a=ice-pwd:{pwd}\r\n")?;
    }
    if !transport.ice_options.is_empty() {
        write!(f, "a=ice-options:{}\r\n", transport.ice_options.join(" "))?;
    }
    for Fingerprint { hash, digest } in &transport.fingerprints {
        let name = match hash {
            HashFunction::Sha256 => "sha-256",
            HashFunction::Sha384 => "sha-384",
            HashFunction::Sha512 => "sha-512",
            HashFunction::Other => "sha-1",
        };
        write!(f, "a=fingerprint:{name} ")?;
        for (at, byte) in digest.iter().enumerate() {
            if at > 0 {
                f.write_char(':')?;
            }
            write!(f, "{byte:02X}")?;
        }
        f.write_str("\r\n")?;
    }
    if let Some(setup) = transport.setup {
        let setup = match setup {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::ActPass => "actpass",
        };
        write!(f, "a=setup:{setup}\r\n")?;
    }
    Ok(())
}

fn write_media(f: &mut Formatter<'_>, media: &Media) -> fmt::Result {
    let kind = match media.kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
        MediaKind::Application => "application",
        MediaKind::Other => "text",
    };
    write!(f, "m={kind} {} {}", media.port, media.protocol)?;
    if media.kind == MediaKind::Application {
        f.write_str(" webrtc-datachannel")?;
    } else if media.codecs.is_empty() {
        // A rejected section still needs one format.
        f.write_str(" 0")?;
    }
    for codec in &media.codecs {
        write!(f, " {}", codec.payload_type)?;
    }
    f.write_str("\r\nc=IN IP4 0.0.0.0\r\n")?;
    write_transport(f, &media.transport)?;
    if !media.mid.is_empty() {
        write!(f, "a=mid:{}\r\n", media.mid)?;
    }
    if media.bundle_only {
        f.write_str("a=bundle-only\r\n")?;
    }
    if media.kind != MediaKind::Application {
        write!(f, "a={}\r\n", direction_name(media.direction))?;
    }
    if media.rtcp_mux {
        f.write_str("a=rtcp-mux\r\n")?;
    }
    if media.rtcp_rsize {
        f.write_str("a=rtcp-rsize\r\n")?;
    }
    for extension in &media.extensions {
        write!(f, "a=extmap:{}", extension.id)?;
        if let Some(direction) = extension.direction {
            write!(f, "/{}", direction_name(direction))?;
        }
        write!(f, " {}\r\n", extension.uri)?;
    }
    for msid in &media.msids {
        write!(f, "a=msid:{}{}{}\r\n", msid.stream, if msid.track.is_empty() { "" } else { " " }, msid.track)?;
    }
    media.codecs.iter().try_for_each(|codec| write_codec(f, codec))?;
    for rid in &media.rids {
        write!(f, "a=rid:{} {}\r\n", rid.id, if rid.send { "send" } else { "recv" })?;
    }
    write_simulcast(f, media)?;
    for group in &media.ssrc_groups {
        write!(f, "a=ssrc-group:{}", group.semantics)?;
        for ssrc in &group.ssrcs {
            write!(f, " {ssrc}")?;
        }
        f.write_str("\r\n")?;
    }
    for ssrc in &media.ssrcs {
        // `a=ssrc` needs an attribute; `cname:` alone is the shortest one.
        write!(f, "a=ssrc:{} cname:{}\r\n", ssrc.ssrc, ssrc.cname)?;
        if let Some(msid) = &ssrc.msid {
            let space = if msid.track.is_empty() { "" } else { " " };
            write!(f, "a=ssrc:{} msid:{}{space}{}\r\n", ssrc.ssrc, msid.stream, msid.track)?;
        }
    }
    if let Some(port) = media.sctp_port {
        write!(f, "a=sctp-port:{port}\r\n")?;
    }
    if let Some(size) = media.max_message_size {
        write!(f, "a=max-message-size:{size}\r\n")?;
    }
    for candidate in &media.candidates {
        write!(f, "a=candidate:{candidate}\r\n")?;
    }
    if media.end_of_candidates {
        f.write_str("a=end-of-candidates\r\n")?;
    }
    Ok(())
}

fn write_codec(f: &mut Formatter<'_>, codec: &Codec) -> fmt::Result {
    let pt = codec.payload_type;
    if !codec.name.is_empty() {
        write!(f, "a=rtpmap:{pt} {}/{}", codec.name, codec.clock_rate)?;
        if codec.channels > 1 {
            write!(f, "/{}", codec.channels)?;
        }
        f.write_str("\r\n")?;
    }
    for feedback in &codec.feedback {
        write!(f, "a=rtcp-fb:{pt} {feedback}\r\n")?;
    }
    if !codec.fmtp.is_empty() {
        write!(f, "a=fmtp:{pt} {}\r\n", codec.fmtp)?;
    }
    Ok(())
}

fn write_simulcast(f: &mut Formatter<'_>, media: &Media) -> fmt::Result {
    let simulcast = &media.simulcast;
    if simulcast.send.is_empty() && simulcast.recv.is_empty() {
        return Ok(());
    }
    f.write_str("a=simulcast:")?;
    if !simulcast.send.is_empty() {
        write!(f, "send {}", simulcast.send.join(";"))?;
    }
    if !simulcast.recv.is_empty() {
        let space = if simulcast.send.is_empty() { "" } else { " " };
        write!(f, "{space}recv {}", simulcast.recv.join(";"))?;
    }
    f.write_str("\r\n")
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::SendRecv => "sendrecv",
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::Inactive => "inactive",
    }
}
