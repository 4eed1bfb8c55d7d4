//! The frames of `/ws`: a text that names the kind, and its data, as two MessagePack values without anything around them.

use bytes::Bytes;

use super::msgpack::{Malformed, Reader, Writer};

/// Longest name of a call, a person, a session or a channel. Mattermost's have 26 letters.
pub const ID_LEN_MAX: usize = 96;

/// What an `rtc` frame is about. The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RtcKind {
    /// A candidate, as JSON.
    Ice = 1,
    /// A description, as JSON.
    Sdp = 2,
    /// The microphone is off.
    Mute = 3,
    /// The microphone is on.
    Unmute = 4,
    /// A screen is shared; JSON names its stream.
    ScreenOn = 5,
    /// No screen is shared any more.
    ScreenOff = 6,
    /// Somebody speaks; only to the plugin, in a `vad` frame.
    VoiceOn = 7,
    /// Somebody stopped; only to the plugin, in a `vad` frame.
    VoiceOff = 8,
    /// A camera is on; JSON names its stream.
    VideoOn = 9,
    /// The camera is off.
    VideoOff = 10,
}

impl RtcKind {
    /// From the number on the wire.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Ice,
            2 => Self::Sdp,
            3 => Self::Mute,
            4 => Self::Unmute,
            5 => Self::ScreenOn,
            6 => Self::ScreenOff,
            7 => Self::VoiceOn,
            8 => Self::VoiceOff,
            9 => Self::VideoOn,
            10 => Self::VideoOff,
            _ => return None,
        })
    }
}

/// A frame from the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// Somebody wants into a call. A `groupID` in it is passed over: the group is whom the connection belongs to.
    Join {
        /// The call.
        call_id: String,
        /// The person.
        user_id: String,
        /// The session to make.
        session_id: String,
        /// The channel that the call belongs to.
        channel_id: Option<String>,
        /// Whether AV1 can be sent and shown.
        av1_support: Option<bool>,
        /// Whether our offers may go over the data channel.
        dc_signaling: Option<bool>,
    },
    /// A session ends.
    Leave {
        /// Which.
        session_id: String,
    },
    /// From now on a session's messages go over the connection that this came by.
    Reconnect {
        /// Which.
        session_id: String,
    },
    /// Signalling and state of a session's media.
    Rtc {
        /// Whose.
        session_id: String,
        /// About what.
        kind: RtcKind,
        /// JSON, or nothing.
        data: Bytes,
    },
    /// Something that only the other side sends, or nobody.
    Unexpected {
        /// What it calls itself, at most [`ID_LEN_MAX`] bytes of it.
        kind: String,
    },
}

/// A frame to the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first one of a connection.
    Hello {
        /// Whom the connection belongs to.
        client_id: String,
        /// Its name, for logs.
        connection_id: String,
    },
    /// Signalling for a session.
    Rtc {
        /// The client's ID.
        group_id: String,
        /// The person.
        user_id: String,
        /// The session.
        session_id: String,
        /// The call.
        call_id: String,
        /// [`RtcKind::Ice`] or [`RtcKind::Sdp`].
        kind: RtcKind,
        /// JSON.
        data: Bytes,
    },
    /// Somebody begins or ends to speak.
    Vad {
        /// The client's ID.
        group_id: String,
        /// The person.
        user_id: String,
        /// The session.
        session_id: String,
        /// The call.
        call_id: String,
        /// [`RtcKind::VoiceOn`] or [`RtcKind::VoiceOff`].
        kind: RtcKind,
    },
    /// A session has ended.
    Close {
        /// Which.
        session_id: String,
    },
}

/// Why a frame of the plugin's is not one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Not the MessagePack that it should be.
    Malformed(Malformed),
    /// A field is missing or empty.
    Missing(&'static str),
    /// A field is longer than [`ID_LEN_MAX`].
    TooLong(&'static str),
    /// Nothing follows on the kind.
    NoData(&'static str),
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(why) => why.fmt(f),
            Self::Missing(field) => write!(f, "{field} should not be empty"),
            Self::TooLong(field) => write!(f, "{field} is longer than {ID_LEN_MAX} bytes"),
            Self::NoData(kind) => write!(f, "{kind} comes without its data"),
        }
    }
}

impl std::error::Error for BadFrame {}

impl From<Malformed> for BadFrame {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl ClientMessage {
    /// Reads a frame of the plugin's. What follows on the two values is passed over.
    ///
    /// # Errors
    /// It is none that can be understood; the connection may go on.
    pub fn decode(frame: &Bytes) -> Result<Self, BadFrame> {
        let mut reader = Reader::new(frame);
        let kind = reader.text()?;
        match kind {
            "join" => read_join(&mut reader),
            "leave" => Ok(Self::Leave { session_id: read_session(&mut reader, "leave")? }),
            "reconnect" => Ok(Self::Reconnect { session_id: read_session(&mut reader, "reconnect")? }),
            "rtc" => read_rtc(&mut reader, frame),
            other => Ok(Self::Unexpected { kind: other.get(..other.floor_char_boundary(ID_LEN_MAX)).unwrap_or_default().to_owned() }),
        }
    }

    /// Its name in figures and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Reconnect { .. } => "reconnect",
            Self::Rtc { .. } => "rtc",
            Self::Unexpected { .. } => "unexpected",
        }
    }
}

fn read_join(reader: &mut Reader<'_>) -> Result<ClientMessage, BadFrame> {
    let (mut call, mut user, mut session) = ("", "", "");
    let (mut channel_id, mut av1_support, mut dc_signaling) = (None, None, None);
    each_pair(reader, "join", |key, value| {
        match key {
            "callID" => call = value.text()?,
            "userID" => user = value.text()?,
            "sessionID" => session = value.text()?,
            // Kept as they come and read when needed by rtcd: one of another kind is as good as none.
            "channelID" => channel_id = optional(value, |value| value.text().map(str::to_owned))?,
            "av1Support" => av1_support = optional(value, Reader::boolean)?,
            "dcSignaling" => dc_signaling = optional(value, Reader::boolean)?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    let channel_id = channel_id.filter(|channel: &String| channel.len() <= ID_LEN_MAX);
    Ok(ClientMessage::Join {
        call_id: id(call, "callID")?,
        user_id: id(user, "userID")?,
        session_id: id(session, "sessionID")?,
        channel_id,
        av1_support,
        dc_signaling,
    })
}

fn read_session(reader: &mut Reader<'_>, kind: &'static str) -> Result<String, BadFrame> {
    let mut session = "";
    each_pair(reader, kind, |key, value| {
        if key == "sessionID" {
            session = value.text()?;
            return Ok(());
        }
        value.skip()
    })?;
    id(session, "sessionID")
}

fn read_rtc(reader: &mut Reader<'_>, frame: &Bytes) -> Result<ClientMessage, BadFrame> {
    let (mut session, mut number, mut data) = ("", 0, &[][..]);
    each_pair(reader, "rtc", |key, value| {
        match key {
            "session_id" => session = value.text()?,
            "type" => number = value.integer()?,
            "data" => data = value.bytes()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    match RtcKind::from_number(number) {
        // Those two only ever go to the plugin.
        None | Some(RtcKind::VoiceOn | RtcKind::VoiceOff) => Ok(ClientMessage::Unexpected { kind: format!("rtc {number}") }),
        Some(kind) => {
            let data = if data.is_empty() { Bytes::new() } else { frame.slice_ref(data) };
            Ok(ClientMessage::Rtc { session_id: id(session, "session_id")?, kind, data })
        }
    }
}

/// Gives each key of a map with the reader before its value, which `take` has to take.
fn each_pair<'a>(
    reader: &mut Reader<'a>,
    kind: &'static str,
    mut take: impl FnMut(&'a str, &mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<(), BadFrame> {
    if reader.is_empty() || reader.nil() {
        return Err(BadFrame::NoData(kind));
    }
    for _ in 0..reader.map()? {
        let key = reader.text()?;
        take(key, reader)?;
    }
    Ok(())
}

/// The value, or nothing where it is nil or of another kind.
fn optional<'a, T>(value: &mut Reader<'a>, read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
    if value.nil() {
        return Ok(None);
    }
    let mut whole = value.clone();
    match read(value) {
        Ok(read) => Ok(Some(read)),
        Err(_) => {
            whole.skip()?;
            *value = whole;
            Ok(None)
        }
    }
}

fn id(text: &str, field: &'static str) -> Result<String, BadFrame> {
    match text.len() {
        0 => Err(BadFrame::Missing(field)),
        1..=ID_LEN_MAX => Ok(text.to_owned()),
        _ => Err(BadFrame::TooLong(field)),
    }
}

impl ServerMessage {
    /// The frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.text(self.name());
        match self {
            Self::Hello { client_id, connection_id } => {
                writer.map(2);
                for text in ["clientID", client_id, "connID", connection_id] {
                    writer.text(text);
                }
            }
            Self::Close { session_id } => {
                writer.map(1);
                writer.text("sessionID");
                writer.text(session_id);
            }
            Self::Rtc { group_id, user_id, session_id, call_id, kind, data } => {
                write_rtc(&mut writer, [group_id, user_id, session_id, call_id], *kind, data);
            }
            Self::Vad { group_id, user_id, session_id, call_id, kind } => {
                write_rtc(&mut writer, [group_id, user_id, session_id, call_id], *kind, &[]);
            }
        }
        writer.into_bytes().into()
    }

    /// What the frame calls itself.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Rtc { .. } => "rtc",
            Self::Vad { .. } => "vad",
            Self::Close { .. } => "close",
        }
    }
}

/// The rtc struct: its keys in this order, without `data` where there is none.
fn write_rtc(writer: &mut Writer, ids: [&String; 4], kind: RtcKind, data: &[u8]) {
    writer.map(if data.is_empty() { 5 } else { 6 });
    for (key, value) in ["group_id", "user_id", "session_id", "call_id"].into_iter().zip(ids) {
        writer.text(key);
        writer.text(value);
    }
    writer.text("type");
    writer.small(kind as u8);
    if !data.is_empty() {
        writer.text("data");
        writer.bytes(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hex as people write it: blanks between groups.
    fn hex(text: &str) -> Bytes {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
    }

    fn decode(text: &str) -> Result<ClientMessage, BadFrame> {
        ClientMessage::decode(&hex(text))
    }

    fn rtc(session: &str, kind: RtcKind, data: &'static [u8]) -> ClientMessage {
        ClientMessage::Rtc { session_id: session.to_owned(), kind, data: Bytes::from_static(data) }
    }

    const UNMUTE: &str =
        "a3727463 85 a867726f75705f6964a0 a7757365725f6964a0 aa73657373696f6e5f6964a57365737341 a763616c6c5f6964a0 a47479706504";
    const JOIN: &str = "a46a6f696e 86 a663616c6c4944a563616c6c41 a6757365724944a57573657241 a973657373696f6e4944a57365737341 \
        a96368616e6e656c4944a56368616e41 aa617631537570706f7274c2 ab64635369676e616c696e67c3";

    fn join_of_a() -> ClientMessage {
        ClientMessage::Join {
            call_id: "callA".to_owned(),
            user_id: "userA".to_owned(),
            session_id: "sessA".to_owned(),
            channel_id: Some("chanA".to_owned()),
            av1_support: Some(false),
            dc_signaling: Some(true),
        }
    }

    #[test]
    fn frames_of_the_plugin_are_understood() {
        assert_eq!(decode(JOIN), Ok(join_of_a()));
        let leave = ClientMessage::Leave { session_id: "sessA".to_owned() };
        assert_eq!(decode("a56c65617665 81 a973657373696f6e4944 a57365737341"), Ok(leave));
        let reconnect = ClientMessage::Reconnect { session_id: "sessA".to_owned() };
        assert_eq!(decode("a97265636f6e6e656374 81 a973657373696f6e4944 a57365737341"), Ok(reconnect));
        assert_eq!(decode(UNMUTE), Ok(rtc("sessA", RtcKind::Unmute, b"")));
        let ice = UNMUTE.replacen("85", "86", 1).replace("a47479706504", "a47479706501 a464617461 c4027b7d");
        assert_eq!(decode(&ice), Ok(rtc("sessA", RtcKind::Ice, b"{}")));
    }

    #[test]
    fn frames_to_the_plugin_are_those_of_the_original() {
        let ids = || ("clientA".to_owned(), "userA".to_owned(), "sessA".to_owned(), "callA".to_owned());
        let hello = ServerMessage::Hello { client_id: "clientA".to_owned(), connection_id: "c".repeat(26) };
        let expected = format!("a568656c6c6f 82 a8636c69656e744944 a7636c69656e7441 a6636f6e6e4944 ba{}", "63".repeat(26));
        assert_eq!(hello.encode(), hex(&expected));
        let close = ServerMessage::Close { session_id: "sessA".to_owned() };
        assert_eq!(close.encode(), hex("a5636c6f7365 81 a973657373696f6e4944 a57365737341"));
        let (group_id, user_id, session_id, call_id) = ids();
        let vad = ServerMessage::Vad { group_id, user_id, session_id, call_id, kind: RtcKind::VoiceOn };
        let filled = "85 a867726f75705f6964a7636c69656e7441 a7757365725f6964a57573657241 aa73657373696f6e5f6964a57365737341 \
            a763616c6c5f6964a563616c6c41 a474797065";
        assert_eq!(vad.encode(), hex(&format!("a3766164 {filled} 07")));
        let (group_id, user_id, session_id, call_id) = ids();
        let sdp = ServerMessage::Rtc { group_id, user_id, session_id, call_id, kind: RtcKind::Sdp, data: Bytes::from_static(b"{}") };
        let six = filled.replacen("85", "86", 1);
        assert_eq!(sdp.encode(), hex(&format!("a3727463 {six} 02 a464617461 c4027b7d")));
    }

    #[test]
    fn long_texts_and_bytes_take_the_shortest_form() {
        for (len, text_head, data_head) in [
            (31, "bf", "c41f"),
            (32, "d920", "c420"),
            (255, "d9ff", "c4ff"),
            (256, "da0100", "c50100"),
            (65_535, "daffff", "c5ffff"),
            (65_536, "db00010000", "c600010000"),
        ] {
            let text = "x".repeat(len);
            let close = ServerMessage::Close { session_id: text.clone() }.encode();
            assert_eq!(close, [&hex("a5636c6f7365 81 a973657373696f6e4944")[..], &hex(text_head), text.as_bytes()].concat(), "{len}");
            let data = Bytes::from(text.clone());
            let none = String::new;
            let (group_id, user_id, session_id, call_id) = (none(), none(), none(), none());
            let sdp = ServerMessage::Rtc { group_id, user_id, session_id, call_id, kind: RtcKind::Sdp, data }.encode();
            assert!(sdp.ends_with(&[&hex("02 a464617461")[..], &hex(data_head), text.as_bytes()].concat()), "{len}");
        }
    }

    /// What Go's library would have understood as well, we do.
    #[test]
    fn other_forms_of_the_same_are_understood() {
        let same = [
            // The kind as str8 and as bin8.
            UNMUTE.replace("a3727463", "d903727463"),
            UNMUTE.replace("a3727463", "c403727463"),
            // A map with a wide head, and with a wider one.
            UNMUTE.replace(" 85 ", " de0005 "),
            UNMUTE.replace(" 85 ", " df00000005 "),
            // A session as bin, str16, str32; its key as str8.
            UNMUTE.replace("a57365737341", "c4057365737341"),
            UNMUTE.replace("a57365737341", "da00057365737341"),
            UNMUTE.replace("a57365737341", "db000000057365737341"),
            UNMUTE.replace("aa73657373696f6e5f6964", "d90a73657373696f6e5f6964"),
            // IDs that other clients of the protocol fill, and nil for none.
            UNMUTE.replace("a867726f75705f6964a0", "a867726f75705f6964a764656661756c74"),
            UNMUTE.replace("a867726f75705f6964a0", "a867726f75705f6964c0"),
            // The number in every width, signed and unsigned.
            UNMUTE.replace("a47479706504", "a474797065cc04"),
            UNMUTE.replace("a47479706504", "a474797065cd0004"),
            UNMUTE.replace("a47479706504", "a474797065ce00000004"),
            UNMUTE.replace("a47479706504", "a474797065cf0000000000000004"),
            UNMUTE.replace("a47479706504", "a474797065d004"),
            UNMUTE.replace("a47479706504", "a474797065d10004"),
            UNMUTE.replace("a47479706504", "a474797065d200000004"),
            UNMUTE.replace("a47479706504", "a474797065d30000000000000004"),
            // Data that is nil or empty; keys nobody knows, of any shape; something after the end; another order.
            UNMUTE.replace(" 85 ", " 86 ") + "a464617461c0",
            UNMUTE.replace(" 85 ", " 86 ") + "a464617461c400",
            UNMUTE.replace(" 85 ", " 87 ") + "a178 82a16101a16293c0c3cb3ff0000000000000 a179 c702ff0102",
            UNMUTE.to_owned() + "c1ffff",
            "a3727463 82 a47479706504 aa73657373696f6e5f6964a57365737341".to_owned(),
        ];
        for text in same {
            assert_eq!(decode(&text), Ok(rtc("sessA", RtcKind::Unmute, b"")), "{text}");
        }
        let ice = |data: &str| UNMUTE.replace(" 85 ", " 86 ").replace("a47479706504", "a47479706501 a464617461") + data;
        for data in ["c4027b7d", "c500027b7d", "c6000000027b7d", "a27b7d", "d9027b7d"] {
            assert_eq!(decode(&ice(data)), Ok(rtc("sessA", RtcKind::Ice, b"{}")), "{data}");
        }
        let group = JOIN.replace(" 86 ", " 87 ") + "a767726f75704944a56f74686572";
        assert_eq!(decode(&group), Ok(join_of_a()), "whose connection it is counts, not what the join says");
        let nothing = JOIN.replace("a56368616e41", "c0").replace("c2 ", "c0 ").replace("c3", "a0");
        let ClientMessage::Join { channel_id, av1_support, dc_signaling, .. } = decode(&nothing).expect("a join") else {
            panic!("not a join")
        };
        assert_eq!((channel_id, av1_support, dc_signaling), (None, None, None));
    }

    #[test]
    fn what_only_rtcd_sends_and_what_nobody_knows_is_unexpected() {
        for (text, kind) in [
            ("a568656c6c6f80", "hello"),
            ("a376616480", "vad"),
            ("a5636c6f736580", "close"),
            ("a3666f6f", "foo"),
            (&UNMUTE.replace("a47479706504", "a47479706507"), "rtc 7"),
            (&UNMUTE.replace("a47479706504", "a4747970650b"), "rtc 11"),
            (&UNMUTE.replace("a47479706504", "a474797065ff"), "rtc -1"),
        ] {
            assert_eq!(decode(text), Ok(ClientMessage::Unexpected { kind: kind.to_owned() }), "{text}");
        }
        let long = [&hex("da0400")[..], &[b'x'; 1024]].concat();
        assert_eq!(ClientMessage::decode(&long.into()), Ok(ClientMessage::Unexpected { kind: "x".repeat(ID_LEN_MAX) }));
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        for (text, expected) in [
            ("", "it is cut off"),
            ("a56c65617665", "leave comes without its data"),
            ("a56c65617665c0", "leave comes without its data"),
            ("a97265636f6e6e656374", "reconnect comes without its data"),
            ("a56c6561766580", "sessionID should not be empty"),
            ("a56c6561766501", "a value that begins with 0x01 stands where a map belongs"),
            ("a56c6561766581a973657373696f6e494407", "a value that begins with 0x07 stands where a text belongs"),
            ("a56c6561766581a973657373696f6e4944a57365", "it is cut off"),
            ("a56c65617665dfffffffff", "it is cut off"),
            ("a56c6561766581a178ddffffffff", "it is cut off"),
            ("a56c6561766581a178c1", "a value that begins with 0xc1 stands where a value belongs"),
            ("a2c328", "a text in it is not UTF-8"),
            (&JOIN.replace("a663616c6c4944a563616c6c41", "a663616c6c4944a0"), "callID should not be empty"),
            (&JOIN.replace("a57573657241", "a0"), "userID should not be empty"),
        ] {
            assert_eq!(decode(text).expect_err(text).to_string(), expected, "{text}");
        }
        let long = [&hex("a56c65617665 81 a973657373696f6e4944 d961")[..], &[b'x'; 97]].concat();
        assert_eq!(ClientMessage::decode(&long.into()), Err(BadFrame::TooLong("sessionID")));
    }

    /// Arrays in arrays, a megabyte deep: an honest reader would fall off its stack.
    #[test]
    fn depth_costs_nothing() {
        let mut deep = hex("a56c65617665 81 a178").to_vec();
        deep.resize(1 << 20, 0x91);
        assert_eq!(ClientMessage::decode(&deep.into()), Err(BadFrame::Malformed(Malformed::CutOff)));
    }
}
