//! Pictures that are noted of people: each is the bytes of a file, cut into the records of one moment.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::TrackError;
use crate::limits::IMAGE_BYTES_MAX;
use crate::manifest::Track;
use crate::read::{ReadError, Recording, Records};
use crate::record::Record;

/// By its first bytes: what a server says of a picture need not be true.
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// What a file of that type is called at its end.
fn ending(mime: &str) -> &'static str {
    match mime {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        _ => "webp",
    }
}

/// The whole pictures of a track, in their order.
pub struct Images<'r> {
    records: Records<'r>,
    picture: Vec<u8>,
    /// The moment of what is in `picture`, and the number of the record that comes next.
    place: Option<(u64, u64)>,
    /// No more of the picture at this moment is kept: it is too long, or a piece of it is missing.
    spoilt: bool,
    /// Pictures that are not whole, too long or of no known type.
    left_out: u64,
}

impl<'r> Images<'r> {
    /// Of a track that [`is_image`].
    pub fn of(recording: &'r Recording, track: u32) -> Self {
        Self { records: recording.records(track), picture: Vec::new(), place: None, spoilt: false, left_out: 0 }
    }

    fn begin(&mut self, timestamp: u64, seq: u64) {
        self.left_out += u64::from(self.place.is_some());
        self.picture.clear();
        (self.place, self.spoilt) = (Some((timestamp, seq)), false);
    }
}

impl Iterator for Images<'_> {
    type Item = Result<Vec<u8>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(record) = self.records.next() {
            let packet = match record {
                Ok(Record::Packet(packet)) => packet,
                Ok(Record::Gap(_)) => continue,
                Err(error) => return Some(Err(error)),
            };
            if self.place.is_none_or(|(timestamp, _)| timestamp != packet.timestamp) {
                self.begin(packet.timestamp, packet.seq);
            }
            self.spoilt |= self.place.is_none_or(|(_, seq)| seq != packet.seq);
            self.spoilt |= self.picture.len() + packet.payload.len() > IMAGE_BYTES_MAX;
            if !self.spoilt {
                self.picture.extend_from_slice(&packet.payload);
            }
            self.place = Some((packet.timestamp, packet.seq.wrapping_add(1)));
            if packet.marker {
                self.place = None;
                let picture = std::mem::take(&mut self.picture);
                if !self.spoilt && image_type(&picture).is_some() {
                    return Some(Ok(picture));
                }
                self.left_out += 1;
            }
        }
        self.left_out += u64::from(self.place.take().is_some());
        None
    }
}

/// Whether a track holds pictures of that kind.
pub(crate) fn is_image(track: &Track) -> bool {
    track.info.kind == "data" && track.info.mime.to_ascii_lowercase().starts_with("image/")
}

/// Writes each picture that is another than the one before into a file of `work`. Gives the files with what their names end on (the first
/// `.png`, the next `-2.png`), and whether that is all of the track.
pub(crate) fn write_all(recording: &Recording, track: &Track, work: &Path) -> Result<(Vec<(String, PathBuf)>, bool), TrackError> {
    let (mut files, mut before) = (Vec::new(), Vec::new());
    let mut images = Images::of(recording, track.number);
    for picture in images.by_ref() {
        let picture = picture?;
        let Some(mime) = image_type(&picture) else { continue };
        if picture == before {
            continue;
        }
        let number = files.len() + 1;
        let path = work.join(format!("image-{}-{number}", track.number));
        File::create(&path)?.write_all(&picture)?;
        let which = if number == 1 { String::new() } else { format!("-{number}") };
        files.push((format!("{which}.{}", ending(mime)), path));
        before = picture;
    }
    Ok((files, images.left_out == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        assert_eq!(image_type(b"\x89PNG\r\n\x1a\n"), Some("image/png"));
        assert_eq!(image_type(b"RIFF....WEBPVP8 "), Some("image/webp"));
        assert_eq!(image_type(b"<svg xmlns"), None);
        assert_eq!(image_type(b""), None);
    }
}
