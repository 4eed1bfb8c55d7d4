//! Drawing on a 4:2:0 frame: rectangles, scaled pictures, names.

use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::layout::{Canvas, Rect};

/// A colour as luma and the two chromas (BT.601, limited range, as browsers encode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    y: u8,
    u: u8,
    v: u8,
}

/// Behind everything.
pub const BACKGROUND: Colour = Colour::rgb(0x12, 0x15, 0x1b);
/// A tile without a camera.
pub const TILE: Colour = Colour::rgb(0x2a, 0x30, 0x3c);
/// Around who is speaking.
pub const SPEAKING: Colour = Colour::rgb(0x3d, 0xd6, 0x8c);
/// Behind a name.
pub const LABEL: Colour = Colour::rgb(0x05, 0x07, 0x0a);
/// Text.
pub const TEXT: Colour = Colour::rgb(0xf4, 0xf6, 0xf8);

impl Colour {
    /// From red, green, blue.
    pub const fn rgb(r: u8, g: u8, b: u8) -> Self {
        let (r, g, b) = (r as i32, g as i32, b as i32);
        Self {
            y: (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8,
            u: (((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128) as u8,
            v: (((112 * r - 94 * g - 18 * b + 128) >> 8) + 128) as u8,
        }
    }
}

/// Text size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// In a label.
    Small,
    /// In the middle of a tile.
    Large,
}

impl Size {
    fn raster(self) -> RasterHeight {
        match self {
            Self::Small => RasterHeight::Size20,
            Self::Large => RasterHeight::Size32,
        }
    }

    /// Height of a line.
    pub fn height(self) -> u32 {
        self.raster().val() as u32
    }

    /// Width of a character.
    pub fn width(self) -> u32 {
        get_raster_width(FontWeight::Regular, self.raster()) as u32
    }
}

/// The frame that is drawn on.
pub struct Picture {
    frame: Video,
}

impl Picture {
    /// An empty picture.
    pub fn new(canvas: Canvas) -> Self {
        let mut picture = Self { frame: Video::new(Pixel::YUV420P, canvas.width, canvas.height) };
        picture.fill(Rect { x: 0, y: 0, width: canvas.width, height: canvas.height }, BACKGROUND);
        picture
    }

    /// For the encoder.
    pub fn into_frame(self) -> Video {
        self.frame
    }

    /// A rectangle of one colour.
    pub fn fill(&mut self, rect: Rect, colour: Colour) {
        for (plane, value, shift) in [(0, colour.y, 0), (1, colour.u, 1), (2, colour.v, 1)] {
            let stride = self.frame.stride(plane);
            let (x, width) = ((rect.x >> shift) as usize, (rect.width >> shift) as usize);
            let data = self.frame.data_mut(plane);
            for row in (rect.y >> shift) as usize..((rect.y + rect.height) >> shift) as usize {
                if let Some(line) = data.get_mut(row * stride + x..row * stride + x + width) {
                    line.fill(value);
                }
            }
        }
    }

    /// A frame of exactly the rectangle's size.
    pub fn draw(&mut self, rect: Rect, source: &Video) {
        if source.format() != Pixel::YUV420P || source.width() != rect.width || source.height() != rect.height {
            return;
        }
        for (plane, shift) in [(0, 0), (1, 1), (2, 1)] {
            let (from, to) = (source.stride(plane), self.frame.stride(plane));
            let (x, width) = ((rect.x >> shift) as usize, (rect.width >> shift) as usize);
            let data = self.frame.data_mut(plane);
            for row in 0..(rect.height >> shift) as usize {
                let start = (row + (rect.y >> shift) as usize) * to + x;
                if let (Some(line), Some(pixels)) =
                    (data.get_mut(start..start + width), source.data(plane).get(row * from..row * from + width))
                {
                    line.copy_from_slice(pixels);
                }
            }
        }
    }

    /// A frame around a rectangle, inside it.
    pub fn border(&mut self, rect: Rect, thickness: u32, colour: Colour) {
        let t = thickness.min(rect.width / 2).min(rect.height / 2);
        self.fill(Rect { height: t, ..rect }, colour);
        self.fill(Rect { y: rect.y + rect.height - t, height: t, ..rect }, colour);
        self.fill(Rect { width: t, ..rect }, colour);
        self.fill(Rect { x: rect.x + rect.width - t, width: t, ..rect }, colour);
    }

    /// A name on a dark strip in the lower left corner of a tile.
    pub fn label(&mut self, tile: Rect, name: &str) {
        let width = tile.width.saturating_sub(24) / Size::Small.width();
        let text = shorten(name, width as usize);
        if text.is_empty() {
            return;
        }
        let strip_width = (text.chars().count() as u32 * Size::Small.width() + 16).next_multiple_of(2).min(tile.width);
        let height = (Size::Small.height() + 8).min(tile.height) & !1;
        let strip = Rect { x: tile.x, y: tile.y + tile.height - height, width: strip_width, height };
        self.fill(strip, LABEL);
        self.text(strip.x + 8, strip.y + 4, &text, Size::Small);
    }

    /// Text from its upper left corner. Characters that the font lacks become a box.
    pub fn text(&mut self, x: u32, y: u32, text: &str, size: Size) {
        let (width, height, stride) = (self.frame.width() as usize, self.frame.height() as usize, self.frame.stride(0));
        let mut left = x as usize;
        for c in text.chars() {
            let glyph = get_raster(c, FontWeight::Regular, size.raster())
                .or_else(|| get_raster('\u{fffd}', FontWeight::Regular, size.raster()))
                .or_else(|| get_raster('?', FontWeight::Regular, size.raster()));
            let Some(glyph) = glyph else { continue };
            let data = self.frame.data_mut(0);
            for (row, line) in glyph.rows().enumerate() {
                for (column, &cover) in line.iter().enumerate() {
                    let (px, py) = (left + column, y as usize + row);
                    if px >= width || py >= height {
                        continue;
                    }
                    if let Some(pixel) = data.get_mut(py * stride + px) {
                        let (below, cover) = (u32::from(*pixel), u32::from(cover));
                        *pixel = ((below * (255 - cover) + u32::from(TEXT.y) * cover) / 255) as u8;
                    }
                }
            }
            left += size.width() as usize;
        }
    }
}

/// A name on one line of at most so many characters.
pub fn shorten(name: &str, most: usize) -> String {
    let clean: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    if clean.chars().count() <= most {
        return clean;
    }
    clean.chars().take(most.saturating_sub(1)).chain(['.']).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawing_at_the_edges_stays_inside() {
        let (width, height) = (1_280, 720);
        let mut picture = Picture::new(Canvas { width, height });
        let corner = Rect { x: width - 40, y: height - 20, width: 40, height: 20 };
        picture.label(corner, "A very long name indeed, with Ümläuts and 日本語");
        picture.text(width - 3, height - 3, "xyz", Size::Large);
        picture.border(corner, 30, SPEAKING);
        assert_eq!(shorten("Ada\nLovelace", 20), "Ada Lovelace");
        assert_eq!(shorten("Ada Lovelace", 5), "Ada .");
        assert_eq!(shorten("Ada", 0), "");
    }

    #[test]
    fn a_name_is_readable_on_its_strip() {
        let mut picture = Picture::new(Canvas { width: 1_280, height: 720 });
        picture.label(Rect { x: 0, y: 0, width: 400, height: 300 }, "Zoë");
        let frame = picture.into_frame();
        let strip: Vec<u8> = (276..296).flat_map(|row| frame.data(0)[row * frame.stride(0)..][..60].to_vec()).collect();
        assert!(strip.contains(&TEXT.y) && strip.contains(&LABEL.y));
    }
}
