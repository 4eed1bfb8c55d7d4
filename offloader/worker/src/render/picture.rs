//! Drawing on a 4:2:0 frame: rectangles, scaled pictures, and colours through masks.

use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;

use super::layout::{Canvas, Rect};
use super::mask::Mask;
use super::theme::Colour;

/// The frame that is drawn on.
pub struct Picture {
    frame: Video,
    /// What goes through masks stays in here.
    clip: Rect,
}

impl Picture {
    /// A picture of one colour.
    pub fn new(canvas: Canvas, ground: Colour) -> Self {
        let mut picture = Self { frame: Video::new(Pixel::YUV420P, canvas.width, canvas.height), clip: canvas.whole() };
        picture.fill(canvas.whole(), ground);
        picture
    }

    /// For the encoder, which notes a picture's time on it.
    pub fn frame_mut(&mut self) -> &mut Video {
        &mut self.frame
    }

    /// As it was drawn.
    #[cfg(test)]
    pub fn frame(&self) -> &Video {
        &self.frame
    }

    /// From now on letters and shapes stay within this.
    pub fn clip(&mut self, to: Rect) {
        self.clip = to;
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

    /// A colour around a rectangle that lies inside another.
    pub fn fill_around(&mut self, inner: Rect, outer: Rect, colour: Colour) {
        let (right, bottom) = (outer.x + outer.width, outer.y + outer.height);
        let (inner_right, inner_bottom) = (inner.x + inner.width, inner.y + inner.height);
        self.fill(Rect { height: inner.y.saturating_sub(outer.y), ..outer }, colour);
        self.fill(Rect { y: inner_bottom, height: bottom.saturating_sub(inner_bottom), ..outer }, colour);
        self.fill(Rect { x: outer.x, width: inner.x.saturating_sub(outer.x), ..inner }, colour);
        self.fill(Rect { x: inner_right, width: right.saturating_sub(inner_right), ..inner }, colour);
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
        let t = thickness.min(rect.width / 2).min(rect.height / 2) & !1;
        self.fill(Rect { height: t, ..rect }, colour);
        self.fill(Rect { y: rect.y + rect.height - t, height: t, ..rect }, colour);
        self.fill(Rect { width: t, ..rect }, colour);
        self.fill(Rect { x: rect.x + rect.width - t, width: t, ..rect }, colour);
    }

    /// A colour where the mask covers.
    pub fn paint(&mut self, mask: &Mask, colour: Colour) {
        self.blend(mask, |x, y| (mask.at(x, y), colour));
    }

    /// A picture with red, green, blue and alpha, as large as the mask, where the mask covers.
    pub fn paste(&mut self, mask: &Mask, source: &Video) {
        let area = mask.area();
        if source.format() != Pixel::RGBA || source.width() != area.width || source.height() != area.height {
            return;
        }
        let (stride, data) = (source.stride(0), source.data(0));
        self.blend(mask, |x, y| {
            let at = y as usize * stride + x as usize * 4;
            match data.get(at..at + 4) {
                Some(&[r, g, b, alpha]) => ((u16::from(mask.at(x, y)) * u16::from(alpha) / 255) as u8, Colour::rgb(r, g, b)),
                _ => (0, Colour::rgb(0, 0, 0)),
            }
        });
    }

    /// Two by two pixels at a time: they have four lumas and one chroma.
    fn blend(&mut self, mask: &Mask, pixel: impl Fn(u32, u32) -> (u8, Colour)) {
        let (area, clip) = (mask.area(), self.clip);
        let (right, bottom) = ((clip.x + clip.width).min(self.frame.width()), (clip.y + clip.height).min(self.frame.height()));
        for (y, x) in (0..area.height).step_by(2).flat_map(|y| (0..area.width).step_by(2).map(move |x| (y, x))) {
            let (left, top) = (area.x + x, area.y + y);
            if left < clip.x || top < clip.y || left + 1 >= right || top + 1 >= bottom {
                continue;
            }
            let (mut covered, mut u, mut v) = (0_u32, 0_u32, 0_u32);
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let (cover, colour) = pixel(x + dx, y + dy);
                if cover > 0 {
                    self.mix(0, left + dx, top + dy, colour.y, u32::from(cover));
                    covered += u32::from(cover);
                    u += u32::from(cover) * u32::from(colour.u);
                    v += u32::from(cover) * u32::from(colour.v);
                }
            }
            if let (Some(u), Some(v)) = (u.checked_div(covered), v.checked_div(covered)) {
                self.mix(1, left / 2, top / 2, u as u8, covered / 4);
                self.mix(2, left / 2, top / 2, v as u8, covered / 4);
            }
        }
    }

    fn mix(&mut self, plane: usize, x: u32, y: u32, value: u8, cover: u32) {
        let stride = self.frame.stride(plane);
        if let Some(pixel) = self.frame.data_mut(plane).get_mut(y as usize * stride + x as usize) {
            *pixel = ((u32::from(*pixel) * (255 - cover) + u32::from(value) * cover + 127) / 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::theme::{DARK, SPEAKING, STRIP, WHITE};

    #[test]
    fn drawing_at_the_edges_stays_inside() {
        let (width, height) = (1_280, 720);
        let mut picture = Picture::new(Canvas { width, height }, DARK.ground);
        let corner = Rect { x: width - 40, y: height - 20, width: 40, height: 20 };
        picture.paint(&Mask::text(width - 3, height - 3, "xyz", 32), WHITE);
        picture.paint(&Mask::disc(Rect { x: width - 20, y: height - 20, width: 40, height: 40 }), SPEAKING);
        picture.border(corner, 30, SPEAKING);
        picture.fill(Rect { x: width - 2, y: height - 2, width: 2, height: 2 }, STRIP);
    }

    #[test]
    fn a_colour_arrives_whole_in_the_middle_of_a_disc_and_not_at_all_outside() {
        let mut picture = Picture::new(Canvas { width: 64, height: 64 }, DARK.ground);
        picture.paint(&Mask::disc(Rect { x: 8, y: 8, width: 48, height: 48 }), SPEAKING);
        let at = |plane: usize, x: usize, y: usize| picture.frame().data(plane)[y * picture.frame().stride(plane) + x];
        assert_eq!((at(0, 32, 32), at(1, 16, 16), at(2, 16, 16)), (SPEAKING.y, SPEAKING.u, SPEAKING.v));
        assert_eq!((at(0, 8, 8), at(1, 4, 4), at(2, 4, 4)), (DARK.ground.y, DARK.ground.u, DARK.ground.v));
    }
}
