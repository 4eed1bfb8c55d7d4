//! A portrait's picture, from whatever format it came in. What cannot be decoded is no portrait, and costs nothing else.

use archive::tracks::image_type;
use ffmpeg_next::codec::{self, Id, threading};
use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{Dictionary, Packet, Rational, decoder, frame};

use super::layout::{Rect, even};
use crate::limits::PORTRAIT_PIXELS_MAX;

/// Decodes a picture into a square with red, green, blue and alpha: its middle, all of its shorter side.
pub fn square(bytes: &[u8], side: u32) -> Option<frame::Video> {
    let picture = decode(bytes)?;
    let (width, height) = (picture.width(), picture.height());
    if width == 0 || height == 0 || u64::from(width) * u64::from(height) > PORTRAIT_PIXELS_MAX {
        return None;
    }
    let shorter = u64::from(width.min(height));
    // The longer side first, then its middle; so long a strip has no middle that shows anything.
    let scaled = |length: u32| u32::try_from(u64::from(length) * u64::from(side) / shorter).unwrap_or(u32::MAX);
    let (wide, high) = (even(scaled(width)).max(side), even(scaled(height)).max(side));
    if wide > side * 16 || high > side * 16 {
        return None;
    }
    let whole = scale(&picture, wide, high)?;
    Some(cut(&whole, Rect { x: (wide - side) / 2, y: (high - side) / 2, width: side, height: side }))
}

/// The same picture in another size.
pub fn resized(picture: &frame::Video, side: u32) -> Option<frame::Video> {
    scale(picture, side, side)
}

fn decode(bytes: &[u8]) -> Option<frame::Video> {
    let codec = decoder::find(match image_type(bytes)? {
        "image/png" => Id::PNG,
        "image/jpeg" => Id::MJPEG,
        "image/gif" => Id::GIF,
        "image/webp" => Id::WEBP,
        _ => return None,
    })?;
    let mut context = codec::Context::new_with_codec(codec);
    context.set_threading(threading::Config { kind: threading::Type::Slice, count: 1, ..threading::Config::default() });
    let mut options = Dictionary::new();
    // Refused before any memory is taken for it.
    options.set("max_pixels", &PORTRAIT_PIXELS_MAX.to_string());
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(Rational::new(1, 1));
    let mut decoder = decoder.open_as_with(codec, options).ok()?.video().ok()?;
    decoder.send_packet(&Packet::copy(bytes)).ok()?;
    let _ = decoder.send_eof();
    let mut picture = frame::Video::empty();
    decoder.receive_frame(&mut picture).ok()?;
    Some(picture)
}

fn scale(picture: &frame::Video, width: u32, height: u32) -> Option<frame::Video> {
    let (format, flags) = (picture.format(), scaling::Flags::AREA);
    let mut context = scaling::Context::get(format, picture.width(), picture.height(), Pixel::RGBA, width, height, flags).ok()?;
    let mut out = frame::Video::empty();
    context.run(picture, &mut out).ok()?;
    Some(out)
}

/// A part of a picture.
fn cut(whole: &frame::Video, part: Rect) -> frame::Video {
    let mut out = frame::Video::new(Pixel::RGBA, part.width, part.height);
    let (from, to) = (whole.stride(0), out.stride(0));
    let (left, bytes) = (part.x as usize * 4, part.width as usize * 4);
    for row in 0..part.height as usize {
        let start = (row + part.y as usize) * from + left;
        if let (Some(pixels), Some(line)) = (whole.data(0).get(start..start + bytes), out.data_mut(0).get_mut(row * to..row * to + bytes)) {
            line.copy_from_slice(pixels);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A picture of a size, red on the left and blue on the right, made by the ffmpeg program.
    fn image(format: &str, size: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("x.{format}"));
        let status = Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-f",
                "lavfi",
                "-i",
                &format!("color=red:s={size}"),
                "-f",
                "lavfi",
                "-i",
                &format!("color=blue:s={size}"),
            ])
            .args(["-filter_complex", "hstack", "-frames:v", "1"])
            .arg(&path)
            .status()
            .expect("the ffmpeg program (./x installs it)");
        assert!(status.success(), "{format}");
        std::fs::read(path).unwrap()
    }

    #[test]
    fn each_format_gives_its_middle_as_a_square() {
        super::super::media::init().unwrap();
        for format in ["png", "jpg", "gif", "webp"] {
            let picture = square(&image(format, "100x60"), 64).unwrap_or_else(|| panic!("{format}"));
            assert_eq!((picture.width(), picture.height(), picture.format()), (64, 64, Pixel::RGBA), "{format}");
            let at = |x: usize, y: usize| &picture.data(0)[y * picture.stride(0) + x * 4..][..4];
            let (left, right) = (at(4, 32), at(60, 32));
            assert!(left[0] > 180 && left[2] < 90 && right[2] > 180 && right[0] < 90, "{format}: {left:?} {right:?}");
            let small = resized(&picture, 20).unwrap();
            assert_eq!((small.width(), small.height()), (20, 20));
        }
    }

    #[test]
    fn what_is_no_picture_or_too_large_a_one_is_none() {
        super::super::media::init().unwrap();
        let png = image("png", "100x60");
        for bytes in [&b""[..], b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff\xe0", b"<svg/>", &png[..40]] {
            assert!(square(bytes, 64).is_none(), "{bytes:?}");
        }
        assert!(square(&image("png", "2500x2000"), 64).is_none(), "more pixels than a portrait may have");
        assert!(square(&image("png", "1000x2"), 64).is_none(), "a strip");
    }
}
