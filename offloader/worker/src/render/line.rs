//! The line at the bottom: how long the call has lasted, how many are there, and how people react.

use super::layout::{Rect, even};
use super::mask::{Mask, line_height, shorten, text_width};
use super::picture::Picture;
use super::symbol::Symbol;
use super::tile::{Painter, SMALL};

/// Letters of a reaction without a symbol, and of its author.
const EMOJI_LETTERS: usize = 20;
const NAME_LETTERS: usize = 16;

/// What stands there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// On the left.
    pub words: String,
    /// On the right, the latest last.
    pub reactions: Vec<Reaction>,
}

/// An emoji's name and who it came from, or how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// In Mattermost.
    pub emoji: String,
    /// A name, or a number of people.
    pub who: String,
}

impl Painter {
    /// Draws the line; reactions that find no room beside the words are left out, the oldest first.
    pub fn line(self, picture: &mut Picture, area: Rect, line: &Line) {
        picture.clip(area);
        picture.fill(area, self.theme.line);
        let (letters, margin) = (self.canvas.scaled(SMALL), self.canvas.scaled(16));
        let y = area.y + area.height.saturating_sub(line_height(letters)) / 2;
        picture.paint(&Mask::text(area.x + margin, y, &line.words, letters), self.theme.text);
        let left = area.x + 2 * margin + text_width(&line.words, letters);
        let (side, gap) = (even(line_height(letters) * 11 / 10).min(area.height), self.canvas.scaled(8));
        let mut right = (area.x + area.width).saturating_sub(margin);
        for reaction in line.reactions.iter().rev() {
            let symbol = Symbol::of_emoji(&reaction.emoji);
            let emoji = shorten(&format!(":{}:", reaction.emoji), EMOJI_LETTERS);
            let who = shorten(&reaction.who, NAME_LETTERS);
            let first = if symbol.is_some() { side } else { text_width(&emoji, letters) };
            let wide = first + gap + text_width(&who, letters);
            let Some(x) = right.checked_sub(wide).filter(|x| *x >= left) else { return };
            match symbol {
                Some(symbol) => {
                    let top = even(area.y + (area.height - side) / 2);
                    picture.paint(&symbol.mask(Rect { x: even(x), y: top, width: side, height: side }), symbol.colour());
                }
                None => picture.paint(&Mask::text(x, y, &emoji, letters), self.theme.text),
            }
            picture.paint(&Mask::text(x + first + gap, y, &who, letters), self.theme.quiet);
            right = x.saturating_sub(2 * margin);
        }
    }
}
