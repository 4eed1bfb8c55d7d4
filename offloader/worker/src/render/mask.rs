//! How much of each pixel something covers. Letters and symbols are drawn through it, so that their edges are smooth.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::layout::Rect;

/// A rectangle with even sides and what is covered of it.
pub struct Mask {
    area: Rect,
    /// 0 nothing … 255 all, row by row.
    cover: Vec<u8>,
}

impl Mask {
    /// A shape. `distance` says how far a point of the area is outside of it, in pixels; inside it is negative.
    pub fn of(area: Rect, distance: impl Fn(f32, f32) -> f32) -> Self {
        let cover = |n: u32| {
            let (x, y) = ((n % area.width) as f32 + 0.5, (n / area.width) as f32 + 0.5);
            ((0.5 - distance(x, y)).clamp(0.0, 1.0) * 255.0) as u8
        };
        Self { area, cover: (0..area.width * area.height).map(cover).collect() }
    }

    /// A disc that fills the area.
    pub fn disc(area: Rect) -> Self {
        let (rx, ry) = (area.width as f32 / 2.0, area.height as f32 / 2.0);
        Self::of(area, |x, y| (x - rx).hypot(y - ry) - rx.min(ry))
    }

    /// A line of text from its upper left corner, in letters of about that height. What the font lacks becomes a box.
    pub fn text(x: u32, y: u32, text: &str, height: u32) -> Self {
        let face = Face::of(height);
        let (left, top) = (x & !1, y & !1);
        let width = (x - left + text_width(text, height)).next_multiple_of(2).max(2);
        let rows = (y - top + face.height()).next_multiple_of(2);
        let mut mask = Self { area: Rect { x: left, y: top, width, height: rows }, cover: vec![0; width as usize * rows as usize] };
        for (n, c) in text.chars().enumerate() {
            mask.letter(x - left + (n as f32 * face.advance()) as u32, y - top, c, face);
        }
        mask
    }

    fn letter(&mut self, left: u32, top: u32, c: char, face: Face) {
        let known = |c| get_raster(c, FontWeight::Regular, face.raster);
        let Some(glyph) = known(c).or_else(|| known('\u{fffd}')).or_else(|| known('?')) else { return };
        let sample = |x: i32, y: i32| -> f32 {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return 0.0 };
            glyph.pixel(x, y).map_or(0.0, f32::from)
        };
        for row in 0..face.height() {
            for column in 0..face.advance().ceil() as u32 {
                let cover = if face.scale == 1.0 {
                    sample(column as i32, row as i32)
                } else {
                    let (x, y) = ((column as f32 + 0.5) / face.scale - 0.5, (row as f32 + 0.5) / face.scale - 0.5);
                    let (fx, fy) = (x - x.floor(), y - y.floor());
                    let (x, y) = (x.floor() as i32, y.floor() as i32);
                    let between = (sample(x, y) * (1.0 - fx) + sample(x + 1, y) * fx) * (1.0 - fy)
                        + (sample(x, y + 1) * (1.0 - fx) + sample(x + 1, y + 1) * fx) * fy;
                    // What was blown up gets its edge back.
                    ((between - 127.5) * face.scale.min(2.0) + 127.5).clamp(0.0, 255.0)
                };
                let at = (top + row) as usize * self.area.width as usize + (left + column) as usize;
                if left + column < self.area.width
                    && let Some(pixel) = self.cover.get_mut(at)
                {
                    *pixel = (*pixel).max(cover as u8);
                }
            }
        }
    }

    /// Where it lies.
    pub fn area(&self) -> Rect {
        self.area
    }

    /// How much of a pixel of the area is covered.
    pub fn at(&self, x: u32, y: u32) -> u8 {
        self.cover.get(y as usize * self.area.width as usize + x as usize).copied().unwrap_or(0)
    }
}

/// How wide a line of letters of that height is.
pub fn text_width(text: &str, height: u32) -> u32 {
    (text.chars().count() as f32 * Face::of(height).advance()).ceil() as u32
}

/// How many letters of that height fit into a width.
pub fn letters_in(width: u32, height: u32) -> usize {
    (width as f32 / Face::of(height).advance()) as usize
}

/// How high a line is that was asked for in that height.
pub fn line_height(height: u32) -> u32 {
    Face::of(height).height()
}

/// The font has two sizes; they are used as they are where that is near enough, since scaling blurs.
#[derive(Clone, Copy)]
struct Face {
    raster: RasterHeight,
    scale: f32,
}

impl Face {
    fn of(height: u32) -> Self {
        match height {
            0..=25 => Self { raster: RasterHeight::Size20, scale: 1.0 },
            26..=38 => Self { raster: RasterHeight::Size32, scale: 1.0 },
            _ => Self { raster: RasterHeight::Size32, scale: height as f32 / 32.0 },
        }
    }

    fn advance(self) -> f32 {
        get_raster_width(FontWeight::Regular, self.raster) as f32 * self.scale
    }

    fn height(self) -> u32 {
        (self.raster.val() as f32 * self.scale) as u32
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
    fn a_name_is_cut_to_its_place() {
        assert_eq!(shorten("Ada\nLovelace", 20), "Ada Lovelace");
        assert_eq!(shorten("Ada Lovelace", 5), "Ada .");
        assert_eq!(shorten("Ada", 0), "");
    }

    #[test]
    fn text_stays_within_its_width_in_every_size() {
        for height in [1, 20, 30, 32, 48, 77] {
            let mask = Mask::text(5, 3, "Zoë 日", height);
            let area = mask.area();
            assert!(area.x <= 5 && area.x + area.width >= 5 + text_width("Zoë 日", height), "{height}: {area:?}");
            let covered = |from: u32, to: u32| (from..to).any(|x| (0..area.height).any(|y| mask.at(x, y) > 200));
            let letter = text_width("Z", height);
            assert!(covered(0, letter) && covered(4 * letter, area.width), "{height}: the first letter and a box for the last");
            assert!(!covered(3 * letter + 3, 4 * letter - 1), "{height}: nothing between");
            assert_eq!(letters_in(text_width("Zoë", height), height), 3);
        }
    }

    #[test]
    fn a_disc_is_round_and_its_edge_is_smooth() {
        let disc = Mask::disc(Rect { x: 0, y: 0, width: 40, height: 40 });
        assert_eq!((disc.at(0, 0), disc.at(20, 20), disc.at(20, 1)), (0, 255, 255));
        assert!((0..40).any(|x| (20..235).contains(&disc.at(x, 4))));
    }
}
