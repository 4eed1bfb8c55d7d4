//! One person on the picture: their camera, or else their portrait or initials, with name and what they signal.

use ffmpeg_next::frame::Video;

use super::layout::{Canvas, Rect, even};
use super::mask::{Mask, letters_in, line_height, shorten, text_width};
use super::picture::Picture;
use super::symbol::Symbol;
use super::theme::{BLACK, Colour, HAND, SPEAKING, STRIP, Theme, WHITE, disc_of};

/// Heights of letters at a width of 1280.
pub const SMALL: u32 = 20;
const LARGE: u32 = 32;
/// A portrait is not larger than this, at a width of 1280.
const DISC_MAX: u32 = 240;
/// Smaller than this it is left out.
const DISC_MIN: u32 = 28;

/// Who is shown, and how they are.
pub struct Face<'a> {
    /// Unique in the call.
    pub identity: &'a str,
    /// For people.
    pub name: &'a str,
    /// Is heard.
    pub speaks: bool,
    /// Cannot be heard.
    pub muted: bool,
    /// Has raised a hand.
    pub hand: bool,
    /// Is the call's host.
    pub host: bool,
}

/// Draws people in a theme.
#[derive(Clone, Copy)]
pub struct Painter {
    /// What it draws on.
    pub canvas: Canvas,
    /// In which colours.
    pub theme: Theme,
}

impl Painter {
    /// How large a portrait stands on a tile; `None`: there is no room for one.
    pub fn disc(self, tile: Rect) -> Option<Rect> {
        let (letters, gap) = (self.letters(tile), self.canvas.scaled(10));
        let room = tile.height.saturating_sub(3 * gap + line_height(letters));
        let side = even(room.min(tile.height * 11 / 20).min(tile.width / 2).min(self.canvas.scaled(DISC_MAX)));
        let top = tile.height.saturating_sub(side + gap + line_height(letters)) / 2;
        let disc = Rect { x: tile.x + even((tile.width - side) / 2), y: tile.y + even(top), width: side, height: side };
        (side >= self.canvas.scaled(DISC_MIN)).then_some(disc)
    }

    /// A tile without a camera. The portrait is as large as [`Painter::disc`] says.
    pub fn drawn(self, picture: &mut Picture, tile: Rect, face: &Face<'_>, portrait: Option<&Video>) {
        picture.clip(tile);
        picture.fill(tile, self.theme.tile);
        let letters = self.letters(tile);
        let middle = match self.disc(tile) {
            Some(disc) => {
                let mask = Mask::disc(disc);
                picture.paint(&mask, disc_of(face.identity));
                match portrait {
                    Some(portrait) => picture.paste(&mask, portrait),
                    None => self.initials(picture, disc, face.name),
                }
                if face.hand {
                    let side = even((disc.width * 3 / 10).max(self.canvas.scaled(26)));
                    let (x, y) = (disc.x + disc.width - side * 4 / 5, disc.y.saturating_sub(side / 5).max(tile.y));
                    self.hand(picture, Rect { x: even(x), y: even(y), width: side, height: side });
                }
                disc.y + disc.height + self.canvas.scaled(10)
            }
            None => {
                if face.hand {
                    let side = self.canvas.scaled(26).min(tile.height);
                    self.hand(picture, Rect { x: tile.x, y: tile.y, width: side, height: side });
                }
                tile.y + tile.height.saturating_sub(line_height(letters)) / 2
            }
        };
        let pad = self.canvas.scaled(8);
        let row = Rect { x: tile.x + pad, y: middle, width: tile.width.saturating_sub(2 * pad), height: line_height(letters) };
        let (name, wide) = self.fitted(face, row.width, letters);
        let x = row.x + row.width.saturating_sub(wide) / 2;
        self.row(picture, (x, row.y), &name, face, letters, self.theme.text);
        self.frame(picture, tile, face);
    }

    /// What stands over a camera's picture.
    pub fn over_camera(self, picture: &mut Picture, tile: Rect, face: &Face<'_>) {
        picture.clip(tile);
        let letters = self.canvas.scaled(SMALL);
        let pad = self.canvas.scaled(8);
        let (name, wide) = self.fitted(face, tile.width.saturating_sub(2 * pad), letters);
        if wide > 0 {
            let strip = self.strip(picture, tile, wide);
            self.row(picture, (strip.x + pad, strip.y + pad / 2), &name, face, letters, WHITE);
        }
        if face.hand {
            let side = self.canvas.scaled(36).min(tile.height);
            let at = |edge: u32| edge + self.canvas.scaled(8);
            self.hand(picture, Rect { x: at(tile.x), y: at(tile.y), width: side, height: side });
        }
        self.frame(picture, tile, face);
    }

    /// Text on a dark strip in the lower left corner of an area.
    pub fn label(self, picture: &mut Picture, area: Rect, text: &str) {
        let (letters, pad) = (self.canvas.scaled(SMALL), self.canvas.scaled(8));
        let text = shorten(text, letters_in(area.width.saturating_sub(2 * pad), letters));
        if !text.is_empty() {
            picture.clip(area);
            let strip = self.strip(picture, area, text_width(&text, letters));
            picture.paint(&Mask::text(strip.x + pad, strip.y + pad / 2, &text, letters), WHITE);
        }
    }

    fn strip(self, picture: &mut Picture, area: Rect, wide: u32) -> Rect {
        let pad = self.canvas.scaled(8);
        let height = even(line_height(self.canvas.scaled(SMALL)) + pad + 1).min(area.height);
        let width = (wide + 2 * pad).next_multiple_of(2).min(area.width);
        let strip = Rect { x: area.x, y: area.y + area.height - height, width, height };
        picture.fill(strip, STRIP);
        strip
    }

    fn letters(self, tile: Rect) -> u32 {
        let large = tile.width >= self.canvas.scaled(400) && tile.height >= self.canvas.scaled(220);
        self.canvas.scaled(if large { LARGE } else { SMALL })
    }

    /// The name as far as there is room beside the symbols, and how wide all of it is.
    fn fitted(self, face: &Face<'_>, room: u32, letters: u32) -> (String, u32) {
        let symbols = (u32::from(face.host) + u32::from(face.muted)) * symbol_step(letters);
        let name = shorten(face.name, letters_in(room.saturating_sub(symbols), letters));
        let wide = text_width(&name, letters) + symbols;
        (name, if wide > room { 0 } else { wide })
    }

    /// Host's mark, name, muted microphone.
    fn row(self, picture: &mut Picture, (x, y): (u32, u32), name: &str, face: &Face<'_>, letters: u32, colour: Colour) {
        let side = symbol_side(letters);
        let square = |x: u32| Rect { x: even(x), y: even(y + line_height(letters).saturating_sub(side) / 2), width: side, height: side };
        let mut x = x;
        if face.host {
            picture.paint(&Symbol::Crown.mask(square(x)), Symbol::Crown.colour());
            x += symbol_step(letters);
        }
        if !name.is_empty() {
            picture.paint(&Mask::text(x, y, name, letters), colour);
            x += text_width(name, letters);
        }
        if face.muted {
            picture.paint(&Symbol::Muted.mask(square(x + symbol_step(letters) - side)), Symbol::Muted.colour());
        }
    }

    fn initials(self, picture: &mut Picture, disc: Rect, name: &str) {
        let text = initials(name);
        let letters = disc.height * 2 / 5;
        let (wide, high) = (text_width(&text, letters), line_height(letters));
        let (x, y) = (disc.x + disc.width.saturating_sub(wide) / 2, disc.y + disc.height.saturating_sub(high) / 2);
        if !text.is_empty() {
            picture.paint(&Mask::text(x, y, &text, letters), WHITE);
        }
    }

    fn hand(self, picture: &mut Picture, badge: Rect) {
        picture.paint(&Mask::disc(badge), HAND);
        let inset = even(badge.width / 6);
        let (x, y, side) = (badge.x + inset, badge.y + inset, badge.width - 2 * inset);
        picture.paint(&Symbol::Hand.mask(Rect { x, y, width: side, height: side }), BLACK);
    }

    fn frame(self, picture: &mut Picture, tile: Rect, face: &Face<'_>) {
        if face.speaks {
            picture.border(tile, self.canvas.scaled(4), SPEAKING);
        }
    }
}

fn symbol_side(letters: u32) -> u32 {
    even(line_height(letters) * 9 / 10)
}

/// A symbol and the room between it and the name.
fn symbol_step(letters: u32) -> u32 {
    symbol_side(letters) + letters / 4
}

/// The first letters of the first and the last name.
fn initials(name: &str) -> String {
    let mut names = name.split_whitespace().filter_map(|name| name.chars().find(|c| c.is_alphanumeric()));
    let (first, last) = (names.next(), names.next_back());
    first.into_iter().chain(last).flat_map(char::to_uppercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::theme::DARK;

    #[test]
    fn initials_are_those_of_the_first_and_the_last_name() {
        for (name, expected) in
            [("Ada Lovelace", "AL"), ("zoë", "Z"), ("Jean-Luc de la Tour", "JT"), ("(Bot) x", "BX"), ("…", ""), ("", "")]
        {
            assert_eq!(initials(name), expected, "{name}");
        }
    }

    #[test]
    fn nothing_of_a_tile_is_drawn_outside_of_it() {
        let canvas = Canvas { width: 1_280, height: 720 };
        let painter = Painter { canvas, theme: DARK };
        let face = Face {
            identity: "a",
            name: "A very long name indeed, with Ümläuts and 日本語",
            speaks: true,
            muted: true,
            hand: true,
            host: true,
        };
        for (width, height) in [(632, 704), (264, 148), (264, 128), (120, 40), (60, 20), (24, 18), (4, 4)] {
            let tile = Rect { x: 400, y: 300.min(720 - height), width, height };
            for camera in [false, true] {
                let mut picture = Picture::new(canvas, DARK.ground);
                if camera {
                    painter.over_camera(&mut picture, tile, &face)
                } else {
                    painter.drawn(&mut picture, tile, &face, None)
                }
                let (frame, stride) = (picture.frame(), picture.frame().stride(0));
                let outside = (0..720_u32).flat_map(|y| (0..1_280_u32).map(move |x| (x, y))).find(|(x, y)| {
                    let inside = (tile.x..tile.x + width).contains(x) && (tile.y..tile.y + height).contains(y);
                    !inside && frame.data(0)[*y as usize * stride + *x as usize] != DARK.ground.y
                });
                assert_eq!(outside, None, "{width} x {height}, camera {camera}");
            }
        }
    }
}
