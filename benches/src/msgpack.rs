//! As much of MessagePack as signalling with Mattermost's rtcd needs.

use anyhow::{Context as _, bail};

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// A field of a map.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text of a field of a map.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        if let Some(Self::Text(text)) = self.get(name) { Some(text) } else { None }
    }
}

/// Appends a value.
pub(crate) fn write(out: &mut Vec<u8>, value: &Value) -> anyhow::Result<()> {
    match value {
        Value::Nil => out.push(0xc0),
        Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Int(value) => out.push(u8::try_from(*value).ok().filter(|value| *value < 0x80).context("only small numbers are needed")?),
        Value::Text(text) => {
            match u8::try_from(text.len()) {
                Ok(len) if len < 32 => out.push(0xa0 | len),
                Ok(len) => out.extend_from_slice(&[0xd9, len]),
                Err(_) => {
                    out.push(0xda);
                    out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            out.push(0xc6);
            out.extend_from_slice(&u32::try_from(bytes.len())?.to_be_bytes());
            out.extend_from_slice(bytes);
        }
        Value::Map(fields) => {
            out.push(0x80 | u8::try_from(fields.len()).ok().filter(|len| *len < 16).context("only small maps are needed")?);
            for (name, value) in fields {
                write(out, &Value::Text(name.clone()))?;
                write(out, value)?;
            }
        }
    }
    Ok(())
}

/// Takes one value off the front.
pub(crate) fn read(rest: &mut &[u8]) -> anyhow::Result<Value> {
    let kind = take(rest, 1)?[0];
    Ok(match kind {
        0x00..=0x7f => Value::Int(i64::from(kind)),
        0x80..=0x8f => map(rest, usize::from(kind & 0x0f))?,
        0xa0..=0xbf => text(rest, usize::from(kind & 0x1f))?,
        0xc0 => Value::Nil,
        0xc2 | 0xc3 => Value::Bool(kind == 0xc3),
        0xc4..=0xc6 => {
            let len = number(rest, 1 << (kind - 0xc4))?;
            Value::Bytes(take(rest, usize::try_from(len)?)?.to_vec())
        }
        0xcc..=0xcf => Value::Int(i64::try_from(number(rest, 1 << (kind - 0xcc))?)?),
        0xd9..=0xdb => {
            let len = number(rest, 1 << (kind - 0xd9))?;
            text(rest, usize::try_from(len)?)?
        }
        0xde | 0xdf => {
            let len = number(rest, if kind == 0xde { 2 } else { 4 })?;
            map(rest, usize::try_from(len)?)?
        }
        other => bail!("a MessagePack type that rtcd does not send: {other:#x}"),
    })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> anyhow::Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len).context("a MessagePack value is cut off")?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8], len: usize) -> anyhow::Result<u64> {
    Ok(take(rest, len)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

fn text(rest: &mut &[u8], len: usize) -> anyhow::Result<Value> {
    Ok(Value::Text(String::from_utf8(take(rest, len)?.to_vec())?))
}

fn map(rest: &mut &[u8], len: usize) -> anyhow::Result<Value> {
    let mut fields = Vec::new();
    for _ in 0..len {
        let Value::Text(name) = read(rest)? else { bail!("a key that is no text") };
        fields.push((name, read(rest)?));
    }
    Ok(Value::Map(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the contract: `close` of one session, and a voice message as rtcd sends it.
    #[test]
    fn messages_are_read_and_written_as_rtcd_does() -> anyhow::Result<()> {
        let close = b"\xa5close\x81\xa9sessionID\xa5sessA";
        let mut rest = &close[..];
        assert_eq!(read(&mut rest)?, Value::Text("close".to_owned()));
        let data = read(&mut rest)?;
        assert_eq!(data.text("sessionID"), Some("sessA"));
        assert!(rest.is_empty());
        let mut written = Vec::new();
        write(&mut written, &Value::Text("close".to_owned()))?;
        write(&mut written, &data)?;
        assert_eq!(written, close);
        let mut rest = &b"\x82\xa4type\xcc\x01\xa4data\xc4\x02{}"[..];
        let rtc = read(&mut rest)?;
        assert_eq!((rtc.get("type"), rtc.get("data")), (Some(&Value::Int(1)), Some(&Value::Bytes(b"{}".to_vec()))));
        assert!(read(&mut &b"\xd9\x20short"[..]).is_err());
        Ok(())
    }

    #[test]
    fn long_texts_and_bytes_come_back() -> anyhow::Result<()> {
        for value in
            [Value::Text("x".repeat(40)), Value::Text("x".repeat(4000)), Value::Bytes(vec![7; 70_000]), Value::Nil, Value::Bool(true)]
        {
            let mut bytes = Vec::new();
            write(&mut bytes, &value)?;
            assert_eq!(read(&mut bytes.as_slice())?, value);
        }
        Ok(())
    }
}
