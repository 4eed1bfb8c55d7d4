//! Text to model. Every error names its line and what is wrong with it.

use std::collections::HashMap;
use std::fmt;

use super::model::{
    Codec, Description, Direction, Extension, Fingerprint, HashFunction, Media, MediaKind, Msid, Rid, Setup, Ssrc, SsrcGroup,
    TransportAttributes,
};
use crate::limits;

/// Why a text is not a session description this server takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SDP line {line}: {problem}")]
pub struct ParseError {
    /// 1 for the first line; 0 for the text as a whole.
    pub line: u32,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The text or the line is longer than accepted.
    TooLong {
        /// Bytes accepted.
        max: usize,
    },
    /// More of something than accepted.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        max: usize,
    },
    /// Not `x=value`, or with control characters.
    NotALine,
    /// Lines are missing or out of order.
    Order(&'static str),
    /// A value that is not what it has to be.
    Value {
        /// Of what.
        what: &'static str,
        /// The beginning of it, escaped.
        value: String,
    },
    /// Something that may be there once is there twice.
    Twice(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { max } => write!(f, "longer than {max} bytes"),
            Self::TooMany { what, max } => write!(f, "more than {max} {what}"),
            Self::NotALine => f.write_str("not of the form x=value"),
            Self::Order(what) => f.write_str(what),
            Self::Value { what, value } => write!(f, "not a valid {what}: {value}"),
            Self::Twice(what) => write!(f, "a second {what}"),
        }
    }
}

type Parsed<T> = Result<T, Problem>;

/// Parses a description.
///
/// # Errors
/// [`ParseError`] with the line; nothing is repaired silently except what browsers are known to write.
pub fn parse(text: &str) -> Result<Description, ParseError> {
    if text.len() > limits::SDP_LEN_MAX {
        return Err(ParseError { line: 0, problem: Problem::TooLong { max: limits::SDP_LEN_MAX } });
    }
    let mut reader = Reader::default();
    let mut line_number = 0;
    for line in text.split('\n') {
        line_number += 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        reader.line(line).map_err(|problem| ParseError { line: line_number, problem })?;
    }
    reader.finish().map_err(|problem| ParseError { line: line_number, problem })
}

/// Where in the text we are, and what was read so far.
#[derive(Default)]
struct Reader {
    description: Description,
    lines: u32,
    session_direction: Option<Direction>,
    /// Per payload type the index in the current section's codecs.
    codec_index: HashMap<u8, usize>,
    /// Per SSRC the index in the current section's ssrcs.
    ssrc_index: HashMap<u32, usize>,
    /// Feedback for all payload types of the current section, applied at its end.
    wildcard_feedback: Vec<String>,
    ssrcs: usize,
    candidates: usize,
    direction_said: bool,
    has_origin: bool,
}

impl Reader {
    fn line(&mut self, line: &str) -> Parsed<()> {
        if line.len() > limits::SDP_LINE_LEN_MAX {
            return Err(Problem::TooLong { max: limits::SDP_LINE_LEN_MAX });
        }
        let (kind, value) = line.split_once('=').ok_or(Problem::NotALine)?;
        if kind.len() != 1 || value.chars().any(char::is_control) {
            return Err(Problem::NotALine);
        }
        self.lines += 1;
        match kind {
            "v" if self.lines == 1 && value == "0" => Ok(()),
            "v" => Err(Problem::Order("v=0 has to be the first line, once")),
            _ if self.lines == 1 => Err(Problem::Order("v=0 has to be the first line, once")),
            "o" => self.origin(value),
            "m" => self.media(value),
            "a" => self.attribute(value),
            // Known and of no interest: session name, times, bandwidth, connection (ICE decides) …
            "b" | "c" | "e" | "i" | "k" | "p" | "r" | "s" | "t" | "u" | "z" => Ok(()),
            _ => Err(Problem::NotALine),
        }
    }

    fn finish(mut self) -> Parsed<Description> {
        if !self.has_origin {
            return Err(Problem::Order("the o= line is missing"));
        }
        self.end_section();
        Ok(self.description)
    }

    fn origin(&mut self, value: &str) -> Parsed<()> {
        if std::mem::replace(&mut self.has_origin, true) || !self.description.media.is_empty() {
            return Err(Problem::Twice("o= line"));
        }
        let mut words = value.split(' ').skip(1);
        self.description.session_id = number("session id", words.next())?;
        self.description.session_version = number("session version", words.next())?;
        Ok(())
    }

    fn media(&mut self, value: &str) -> Parsed<()> {
        self.end_section();
        if self.description.media.len() >= limits::SDP_MEDIA_MAX {
            return Err(Problem::TooMany { what: "m= sections", max: limits::SDP_MEDIA_MAX });
        }
        let mut words = value.split(' ');
        let kind = match words.next() {
            Some("audio") => MediaKind::Audio,
            Some("video") => MediaKind::Video,
            Some("application") => MediaKind::Application,
            Some(other) if !other.is_empty() => MediaKind::Other,
            _ => return Err(bad("m= line", value)),
        };
        let port = words.next().map(|port| port.split_once('/').map_or(port, |(port, _)| port));
        let mut media = Media {
            kind,
            port: number("port", port)?,
            protocol: token("protocol", words.next().unwrap_or_default(), 32)?.to_owned(),
            ..Media::default()
        };
        if media.protocol.contains("RTP/") && matches!(kind, MediaKind::Audio | MediaKind::Video) {
            for word in words {
                let payload_type: u8 = number("payload type", Some(word))?;
                if payload_type > 127 {
                    return Err(bad("payload type", word));
                }
                if media.codecs.len() >= limits::SDP_CODECS_MAX {
                    return Err(Problem::TooMany { what: "payload types", max: limits::SDP_CODECS_MAX });
                }
                if self.codec_index.insert(payload_type, media.codecs.len()).is_some() {
                    return Err(Problem::Twice("payload type of the same number"));
                }
                media.codecs.push(Codec { payload_type, channels: 1, ..Codec::default() });
            }
            // RFC 8866 5.14: at least one format, in a rejected section too.
            if media.codecs.is_empty() {
                return Err(bad("m= line", value));
            }
        }
        self.description.media.push(media);
        Ok(())
    }

    /// Applies what holds for the whole section once all its lines are read.
    fn end_section(&mut self) {
        self.codec_index.clear();
        self.ssrc_index.clear();
        let wildcard = std::mem::take(&mut self.wildcard_feedback);
        let said = std::mem::take(&mut self.direction_said);
        let default = self.session_direction.unwrap_or_default();
        if let Some(media) = self.description.media.last_mut() {
            // Data has no direction: whatever is said there is not kept.
            if media.kind == MediaKind::Application {
                media.direction = Direction::default();
            } else if !said {
                media.direction = default;
            }
            for feedback in wildcard {
                for codec in &mut media.codecs {
                    if codec.feedback.len() < limits::SDP_FEEDBACK_MAX && !codec.feedback.contains(&feedback) {
                        codec.feedback.push(feedback.clone());
                    }
                }
            }
        }
    }

    fn attribute(&mut self, attribute: &str) -> Parsed<()> {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let direction = match name {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        };
        let Some(media) = self.description.media.last_mut() else {
            if direction.is_some() {
                self.session_direction = direction;
            }
            return session_attribute(&mut self.description, name, value);
        };
        if let Some(direction) = direction {
            media.direction = direction;
            self.direction_said = true;
            return Ok(());
        }
        match name {
            "rtpmap" => rtpmap(media, &self.codec_index, value),
            "fmtp" => fmtp(media, &self.codec_index, value),
            "rtcp-fb" => {
                let (payload_type, feedback) = pair("rtcp-fb", value)?;
                let feedback = words_only("rtcp-fb", feedback, 64)?;
                if payload_type == "*" {
                    return push(&mut self.wildcard_feedback, feedback, "rtcp-fb lines", limits::SDP_FEEDBACK_MAX);
                }
                let Some(codec) = codec(media, &self.codec_index, payload_type)? else { return Ok(()) };
                push(&mut codec.feedback, feedback, "rtcp-fb lines per codec", limits::SDP_FEEDBACK_MAX)
            }
            "ssrc" => {
                let (number_text, attribute) = pair("ssrc", value)?;
                let number: u32 = number("ssrc", Some(number_text))?;
                let at = match self.ssrc_index.get(&number) {
                    Some(&at) => at,
                    None => {
                        // Bounded over the whole description: Firefox and Plan-B-like offers carry many.
                        if self.ssrcs >= limits::SDP_SSRCS_MAX {
                            return Err(Problem::TooMany { what: "SSRCs", max: limits::SDP_SSRCS_MAX });
                        }
                        self.ssrcs += 1;
                        let at = media.ssrcs.len();
                        self.ssrc_index.insert(number, at);
                        media.ssrcs.push(Ssrc { ssrc: number, ..Ssrc::default() });
                        at
                    }
                };
                let Some(ssrc) = media.ssrcs.get_mut(at) else { return Ok(()) };
                match attribute.split_once(':') {
                    Some(("cname", cname)) => ssrc.cname = words_only("cname", cname, limits::SDP_ID_LEN_MAX)?,
                    Some(("msid", value)) => ssrc.msid = Some(msid(value)?),
                    _ => {}
                }
                Ok(())
            }
            "candidate" => {
                if self.candidates >= limits::SDP_CANDIDATES_MAX {
                    return Err(Problem::TooMany { what: "candidates", max: limits::SDP_CANDIDATES_MAX });
                }
                self.candidates += 1;
                media.candidates.push(words_only("candidate", value, 512)?);
                Ok(())
            }
            // Firefox says it per section; it holds for one transport, so for all of them.
            "extmap-allow-mixed" => {
                self.description.extmap_allow_mixed = true;
                Ok(())
            }
            _ => media_attribute(media, name, value),
        }
    }
}

fn session_attribute(description: &mut Description, name: &str, value: &str) -> Parsed<()> {
    match name {
        "ice-lite" => description.ice_lite = true,
        "extmap-allow-mixed" => description.extmap_allow_mixed = true,
        "group" => {
            let mut words = value.split(' ');
            if words.next() == Some("BUNDLE") {
                if !description.bundle.is_empty() {
                    return Err(Problem::Twice("BUNDLE group"));
                }
                for mid in words.filter(|word| !word.is_empty()) {
                    let mid = token("mid", mid, limits::SDP_MID_LEN_MAX)?.to_owned();
                    push(&mut description.bundle, mid, "bundled sections", limits::SDP_MEDIA_MAX)?;
                }
            }
        }
        _ => return transport_attribute(&mut description.transport, name, value).map(|_| ()),
    }
    Ok(())
}

/// True where the attribute was one of a transport.
fn transport_attribute(transport: &mut TransportAttributes, name: &str, value: &str) -> Parsed<bool> {
    match name {
        "ice-ufrag" => transport.ice_ufrag = Some(ice_chars("ice-ufrag", value, 4)?),
        "ice-pwd" => transport.ice_pwd = Some(ice_chars("ice-pwd", value, 22)?),
        "ice-options" => {
            transport.ice_options.clear();
            for option in value.split(' ').filter(|option| !option.is_empty()) {
                let option = token("ice-options", option, 32)?.to_owned();
                push(&mut transport.ice_options, option, "ICE options", 8)?;
            }
        }
        "fingerprint" => {
            let fingerprint = fingerprint(value)?;
            push(&mut transport.fingerprints, fingerprint, "fingerprints", 8)?;
        }
        "setup" => {
            transport.setup = Some(match value {
                "active" => Setup::Active,
                "passive" => Setup::Passive,
                "actpass" => Setup::ActPass,
                _ => return Err(bad("setup", value)),
            });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn media_attribute(media: &mut Media, name: &str, value: &str) -> Parsed<()> {
    match name {
        "mid" => {
            if !media.mid.is_empty() {
                return Err(Problem::Twice("mid in one section"));
            }
            media.mid = token("mid", value, limits::SDP_MID_LEN_MAX)?.to_owned();
        }
        "bundle-only" => media.bundle_only = true,
        "rtcp-mux" => media.rtcp_mux = true,
        "rtcp-rsize" => media.rtcp_rsize = true,
        "end-of-candidates" => media.end_of_candidates = true,
        "extmap" => {
            let extension = extmap(value)?;
            if media.extensions.iter().any(|other| other.id == extension.id) {
                return Err(Problem::Twice("extmap of the same id"));
            }
            push(&mut media.extensions, extension, "header extensions", limits::SDP_EXTENSIONS_MAX)?;
        }
        "msid" => push(&mut media.msids, msid(value)?, "msid lines", 8)?,
        "rid" => {
            let mut words = value.split(' ');
            let id = rid(words.next().unwrap_or_default())?;
            let send = match words.next() {
                Some("send") => true,
                Some("recv") => false,
                _ => return Err(bad("rid", value)),
            };
            // They should be unique (RFC 8851, 6.2.1). pion's later offers name what an answer received once more, as `recv`
            // (`lk load-test`, 2026-11-22); that it is sent counts.
            match media.rids.iter_mut().find(|other| other.id == id) {
                Some(known) => known.send |= send,
                None => push(&mut media.rids, Rid { id, send }, "rids", limits::SDP_RIDS_MAX)?,
            }
        }
        "simulcast" => simulcast(media, value)?,
        "ssrc-group" => {
            let (semantics, members) = pair("ssrc-group", value)?;
            let mut group = SsrcGroup { semantics: token("ssrc-group", semantics, 16)?.to_owned(), ssrcs: Vec::new() };
            for member in members.split(' ') {
                push(&mut group.ssrcs, number("ssrc", Some(member))?, "SSRCs of a group", limits::SDP_RIDS_MAX)?;
            }
            push(&mut media.ssrc_groups, group, "SSRC groups", limits::SDP_SSRC_GROUPS_MAX)?;
        }
        "sctp-port" => media.sctp_port = Some(number("sctp-port", Some(value))?),
        "max-message-size" => media.max_message_size = Some(number("max-message-size", Some(value))?),
        _ => {
            transport_attribute(&mut media.transport, name, value)?;
        }
    }
    Ok(())
}

fn codec<'a>(media: &'a mut Media, index: &HashMap<u8, usize>, payload_type: &str) -> Parsed<Option<&'a mut Codec>> {
    let payload_type: u8 = number("payload type", Some(payload_type))?;
    // A line for a payload type that the m= line does not list says nothing.
    Ok(index.get(&payload_type).and_then(|&at| media.codecs.get_mut(at)))
}

fn rtpmap(media: &mut Media, index: &HashMap<u8, usize>, value: &str) -> Parsed<()> {
    let (payload_type, encoding) = pair("rtpmap", value)?;
    let Some(codec) = codec(media, index, payload_type)? else { return Ok(()) };
    if !codec.name.is_empty() {
        return Err(Problem::Twice("rtpmap of the same payload type"));
    }
    let mut parts = encoding.trim_end().split('/');
    codec.name = token("codec name", parts.next().unwrap_or_default(), 32)?.to_owned();
    codec.clock_rate = number("clock rate", parts.next())?;
    codec.channels = parts.next().map_or(Ok(1), |channels| number("channel count", Some(channels)))?;
    Ok(())
}

fn fmtp(media: &mut Media, index: &HashMap<u8, usize>, value: &str) -> Parsed<()> {
    let (payload_type, parameters) = pair("fmtp", value)?;
    let Some(codec) = codec(media, index, payload_type)? else { return Ok(()) };
    if !codec.fmtp.is_empty() {
        return Err(Problem::Twice("fmtp of the same payload type"));
    }
    codec.fmtp = words_only("fmtp", parameters, limits::SDP_FMTP_LEN_MAX)?;
    Ok(())
}

fn extmap(value: &str) -> Parsed<Extension> {
    let (id, rest) = pair("extmap", value)?;
    let (id, direction) = match id.split_once('/') {
        None => (id, None),
        Some((id, "sendrecv")) => (id, Some(Direction::SendRecv)),
        Some((id, "sendonly")) => (id, Some(Direction::SendOnly)),
        Some((id, "recvonly")) => (id, Some(Direction::RecvOnly)),
        Some((id, "inactive")) => (id, Some(Direction::Inactive)),
        Some(_) => return Err(bad("extmap", value)),
    };
    let id: u8 = number("extension id", Some(id))?;
    if id == 0 {
        return Err(bad("extension id", value));
    }
    let uri = rest.split(' ').next().unwrap_or_default();
    Ok(Extension { id, direction, uri: token("extension URI", uri, 256)?.to_owned() })
}

fn msid(value: &str) -> Parsed<Msid> {
    let (stream, track) = value.split_once(' ').unwrap_or((value, ""));
    let track = track.split(' ').next().unwrap_or_default();
    let stream = token("msid", stream, limits::SDP_ID_LEN_MAX)?.to_owned();
    let track = if track.is_empty() { "" } else { token("msid", track, limits::SDP_ID_LEN_MAX)? };
    Ok(Msid { stream, track: track.to_owned() })
}

fn rid(value: &str) -> Parsed<String> {
    let fits = (1..=limits::SDP_RID_LEN_MAX).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(value.to_owned()) } else { Err(bad("rid", value)) }
}

fn simulcast(media: &mut Media, value: &str) -> Parsed<()> {
    let mut words = value.split(' ');
    while let Some(direction) = words.next() {
        let list = words.next().ok_or_else(|| bad("simulcast", value))?;
        let rids = match direction {
            "send" => &mut media.simulcast.send,
            "recv" => &mut media.simulcast.recv,
            _ => return Err(bad("simulcast", value)),
        };
        if !rids.is_empty() {
            return Err(Problem::Twice("simulcast list of one direction"));
        }
        for stream in list.split(';') {
            let first = stream.split(',').next().unwrap_or_default();
            let first = rid(first.strip_prefix('~').unwrap_or(first))?;
            push(rids, first, "simulcast streams", limits::SDP_RIDS_MAX)?;
        }
    }
    Ok(())
}

fn fingerprint(value: &str) -> Parsed<Fingerprint> {
    let (name, digest) = pair("fingerprint", value)?;
    let hash = if name.eq_ignore_ascii_case("sha-256") {
        HashFunction::Sha256
    } else if name.eq_ignore_ascii_case("sha-384") {
        HashFunction::Sha384
    } else if name.eq_ignore_ascii_case("sha-512") {
        HashFunction::Sha512
    } else {
        HashFunction::Other
    };
    let mut bytes = Vec::with_capacity(32);
    for pair in digest.trim_end().split(':') {
        let byte = (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok()).flatten();
        // 64 bytes: SHA-512, the longest registered.
        push(&mut bytes, byte.ok_or_else(|| bad("fingerprint", value))?, "fingerprint bytes", 64)?;
    }
    let expected = match hash {
        HashFunction::Sha256 => 32,
        HashFunction::Sha384 => 48,
        HashFunction::Sha512 => 64,
        HashFunction::Other => bytes.len(),
    };
    if bytes.len() != expected {
        return Err(bad("fingerprint", value));
    }
    Ok(Fingerprint { hash, digest: bytes })
}

/// RFC 8839 ice-char: letters, digits, `+`, `/`; Chromium of old also `-`, `_`, `=`; at most 256 of them.
fn ice_chars(what: &'static str, value: &str, min: usize) -> Parsed<String> {
    let fits = (min..=256).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte));
    // Not shown: it may be a password.
    if fits { Ok(value.to_owned()) } else { Err(bad(what, "")) }
}

/// Visible ASCII without spaces.
fn token<'a>(what: &'static str, value: &'a str, max: usize) -> Parsed<&'a str> {
    let fits = (1..=max).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(value) } else { Err(bad(what, value)) }
}

/// Visible ASCII with spaces, outer ones removed.
fn words_only(what: &'static str, value: &str, max: usize) -> Parsed<String> {
    let value = value.trim_matches(' ');
    let fits = value.len() <= max && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fits { Ok(value.to_owned()) } else { Err(bad(what, value)) }
}

fn pair<'a>(what: &'static str, value: &'a str) -> Parsed<(&'a str, &'a str)> {
    value.split_once(' ').ok_or_else(|| bad(what, value))
}

fn number<T: std::str::FromStr>(what: &'static str, value: Option<&str>) -> Parsed<T> {
    let value = value.unwrap_or_default().trim_end();
    // `+5` parses as a Rust number and is none in SDP.
    let number = value.starts_with(|first: char| first.is_ascii_digit()).then(|| value.parse().ok()).flatten();
    number.ok_or_else(|| bad(what, value))
}

fn push<T>(list: &mut Vec<T>, item: T, what: &'static str, max: usize) -> Parsed<()> {
    if list.len() >= max {
        return Err(Problem::TooMany { what, max });
    }
    list.push(item);
    Ok(())
}

fn bad(what: &'static str, value: &str) -> Problem {
    // 60: enough to find it, too little to fill a log.
    Problem::Value { what, value: value.chars().take(60).flat_map(char::escape_default).collect() }
}
