//! The one file: entries within bounds, as a `.tar.gz` that every system opens.

use std::io::Write;

use archive::bundle::tar;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

/// Of one entry; of what is longer the end is kept, where the latest stands.
pub(super) const ENTRY_MAX: usize = 4 << 20;
/// Of all entries together, unpacked: what a mail can carry once it is packed.
const TOTAL_MAX: usize = 32 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Pack {
    entries: Vec<(String, String)>,
    pub(super) contents: Vec<Content>,
    bytes: usize,
}

/// What `contents.json` says of an entry.
#[derive(Debug, Serialize)]
pub(super) struct Content {
    name: String,
    bytes: usize,
    /// Only its end is here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Pack {
    pub(super) fn add(&mut self, name: &str, text: &str) {
        let room = ENTRY_MAX.min(TOTAL_MAX.saturating_sub(self.bytes));
        let kept = end_of(text, room);
        self.bytes += kept.len();
        self.contents.push(Content { name: name.to_owned(), bytes: kept.len(), cut: kept.len() < text.len() });
        self.entries.push((name.to_owned(), kept.to_owned()));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Writes all entries, `first` before them, below a folder of that name.
    pub(super) fn write(&self, out: impl Write, folder: &str, first: &[(&str, String)], now_s: u64) -> std::io::Result<()> {
        let mut out = GzEncoder::new(out, Compression::default());
        let first = first.iter().map(|(name, text)| (*name, text.as_str()));
        for (name, text) in first.chain(self.entries.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
            let bytes = text.len() as u64;
            out.write_all(&tar::header(&format!("{folder}/{name}"), bytes, now_s))?;
            out.write_all(text.as_bytes())?;
            out.write_all(&vec![0; tar::padding(bytes)])?;
        }
        out.write_all(&[0; tar::END_BYTES])?;
        out.finish()?.flush()
    }
}

/// At most so many bytes of the end, from the beginning of a line where there is one.
pub(super) fn end_of(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let kept = &text[text.ceil_char_boundary(text.len() - bytes_max)..];
    kept.find('\n').map_or(kept, |end| &kept[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_keeps_its_end_and_says_so() {
        let long: String = (0..ENTRY_MAX / 8).map(|line| format!("line {line:06}\n")).collect();
        let mut pack = Pack::default();
        for _ in 0..20 {
            pack.add("logs/a.log", &long);
        }
        let kept: usize = pack.entries.iter().map(|(_, text)| text.len()).sum();
        assert!(kept <= TOTAL_MAX && kept > TOTAL_MAX - 2 * ENTRY_MAX, "{kept}");
        let (_, text) = &pack.entries[0];
        assert!(text.starts_with("line ") && long.ends_with(text.as_str()) && text.len() > ENTRY_MAX - 20);
        assert!(pack.contents.iter().all(|content| content.cut));
        assert_eq!(end_of("ä\nö", 3), "ö");
    }
}
