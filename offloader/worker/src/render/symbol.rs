//! Small symbols, drawn: the font has letters only. Each is a shape on a square of 24 by 24.

use super::layout::Rect;
use super::mask::Mask;
use super::theme::Colour;

/// What can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Symbol {
    /// A microphone with a stroke through it.
    Muted,
    /// A raised hand.
    Hand,
    /// Of the host.
    Crown,
    /// 👍
    ThumbUp,
    /// 👎
    ThumbDown,
    /// ❤
    Heart,
    /// 🙂
    Smile,
    /// 😂
    Laugh,
    /// 🙁
    Sad,
    /// 😮
    Surprise,
    /// ✅
    Tick,
    /// ❌
    Cross,
}

/// Its side, in its own units.
const SIDE: f32 = 24.0;
const YELLOW: Colour = Colour::rgb(0xff, 0xbc, 0x1f);

impl Symbol {
    /// The symbol for a reaction by its name in Mattermost; of most there is none.
    pub fn of_emoji(name: &str) -> Option<Self> {
        Some(match name {
            "+1" | "thumbsup" => Self::ThumbUp,
            "-1" | "thumbsdown" => Self::ThumbDown,
            "heart" | "hearts" | "heartbeat" | "heavy_heart_exclamation_mark_ornament" => Self::Heart,
            "smile" | "smiley" | "grinning" | "slightly_smiling_face" | "blush" | "relaxed" | "grin" => Self::Smile,
            "joy" | "laughing" | "rolling_on_the_floor_laughing" | "rofl" | "sweat_smile" => Self::Laugh,
            "cry" | "sob" | "disappointed" | "slightly_frowning_face" | "white_frowning_face" | "pensive" => Self::Sad,
            "open_mouth" | "astonished" | "hushed" | "scream" | "flushed" => Self::Surprise,
            "white_check_mark" | "heavy_check_mark" | "ballot_box_with_check" => Self::Tick,
            "x" | "negative_squared_cross_mark" | "heavy_multiplication_x" => Self::Cross,
            "hand" | "raised_hand" | "wave" | "raised_hand_with_fingers_splayed" => Self::Hand,
            _ => return None,
        })
    }

    /// What a reaction is drawn in.
    pub fn colour(self) -> Colour {
        match self {
            Self::Heart => Colour::rgb(0xf0, 0x43, 0x5a),
            Self::Tick => Colour::rgb(0x3d, 0xc4, 0x7e),
            Self::Cross | Self::Muted => Colour::rgb(0xe8, 0x5b, 0x6b),
            Self::Hand | Self::Crown | Self::ThumbUp | Self::ThumbDown | Self::Smile | Self::Laugh | Self::Sad | Self::Surprise => YELLOW,
        }
    }

    /// As large as a square.
    pub fn mask(self, square: Rect) -> Mask {
        let scale = square.width as f32 / SIDE;
        Mask::of(square, |x, y| self.distance(x / scale, y / scale) * scale)
    }

    /// How far a point is outside.
    fn distance(self, x: f32, y: f32) -> f32 {
        let p = (x, y);
        match self {
            Self::Muted => {
                let cup = ring(p, (12.0, 11.0), 6.4, 1.9).max(11.0 - y);
                let foot = line(p, (12.0, 17.4), (12.0, 21.0), 1.0).min(line(p, (8.5, 21.2), (15.5, 21.2), 1.0));
                let microphone = line(p, (12.0, 5.8), (12.0, 11.0), 3.6).min(cup).min(foot);
                let stroke = line(p, (4.0, 3.5), (20.0, 20.5), 1.0);
                // Room on both sides of the stroke, so that it is seen.
                microphone.max(1.1 - stroke).min(stroke)
            }
            Self::Hand => {
                let fingers =
                    [((8.6, 13.5), (8.2, 6.2)), ((11.2, 13.0), (11.2, 3.8)), ((13.9, 13.0), (14.2, 4.4)), ((16.5, 13.5), (17.2, 6.6))];
                let fingers = fingers.into_iter().map(|(from, to)| line(p, from, to, 1.15)).fold(f32::MAX, f32::min);
                let palm = rounded(p, (12.5, 16.0), (5.1, 4.8), 3.6);
                fingers.min(palm).min(line(p, (8.8, 18.5), (4.6, 13.6), 1.3))
            }
            Self::Crown => {
                let points = [
                    [(3.5, 7.5), (10.5, 16.5), (5.5, 16.5)],
                    [(12.0, 4.0), (18.0, 16.5), (6.0, 16.5)],
                    [(20.5, 7.5), (18.5, 16.5), (13.5, 16.5)],
                ];
                points.into_iter().map(|points| triangle(p, points)).fold(rounded(p, (12.0, 18.8), (6.6, 1.2), 0.6), f32::min)
            }
            Self::ThumbUp => {
                let fist = rounded(p, (14.2, 15.2), (5.8, 5.0), 2.4);
                let thumb = line(p, (12.4, 12.0), (14.4, 5.2), 1.9).min(triangle(p, [(8.6, 13.2), (12.8, 8.0), (17.0, 14.0)]));
                fist.min(thumb).min(rounded(p, (5.0, 15.6), (2.0, 4.8), 0.8))
            }
            Self::ThumbDown => Self::ThumbUp.distance(x, SIDE - y),
            Self::Heart => {
                let lobes = disc(p, (7.9, 9.0), 4.9).min(disc(p, (16.1, 9.0), 4.9));
                lobes.min(triangle(p, [(3.9, 11.8), (20.1, 11.8), (12.0, 21.0)])).min(rounded(p, (12.0, 10.5), (5.0, 1.8), 0.5))
            }
            Self::Smile => face(p).max(-ring(p, (12.0, 11.0), 6.0, 1.6).max(13.2 - y)),
            Self::Laugh => face(p).max(-disc(p, (12.0, 13.0), 6.0).max(13.0 - y)),
            Self::Sad => face(p).max(-ring(p, (12.0, 20.0), 5.2, 1.6).max(y - 17.2)),
            Self::Surprise => face(p).max(-disc(p, (12.0, 16.2), 2.6)),
            Self::Tick => line(p, (4.5, 12.5), (10.0, 18.0), 1.9).min(line(p, (10.0, 18.0), (19.5, 6.5), 1.9)),
            Self::Cross => line(p, (6.0, 6.0), (18.0, 18.0), 1.9).min(line(p, (18.0, 6.0), (6.0, 18.0), 1.9)),
        }
    }
}

/// A disc with two eyes cut out.
fn face(p: (f32, f32)) -> f32 {
    disc(p, (12.0, 12.0), 10.5).max(-disc(p, (8.2, 9.2), 1.5)).max(-disc(p, (15.8, 9.2), 1.5))
}

fn disc((x, y): (f32, f32), (cx, cy): (f32, f32), radius: f32) -> f32 {
    (x - cx).hypot(y - cy) - radius
}

/// A circle's line.
fn ring(p: (f32, f32), centre: (f32, f32), radius: f32, width: f32) -> f32 {
    disc(p, centre, radius).abs() - width / 2.0
}

/// A line with round ends.
fn line((x, y): (f32, f32), (ax, ay): (f32, f32), (bx, by): (f32, f32), radius: f32) -> f32 {
    let (dx, dy) = (bx - ax, by - ay);
    let along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (x - ax - along * dx).hypot(y - ay - along * dy) - radius
}

/// A rectangle with round corners, by its middle and half its sides.
fn rounded((x, y): (f32, f32), (cx, cy): (f32, f32), (hx, hy): (f32, f32), radius: f32) -> f32 {
    let (dx, dy) = ((x - cx).abs() - hx + radius, (y - cy).abs() - hy + radius);
    dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius
}

/// A triangle whose corners go clockwise on the picture.
fn triangle((x, y): (f32, f32), corners: [(f32, f32); 3]) -> f32 {
    let side = |(ax, ay): (f32, f32), (bx, by): (f32, f32)| {
        let (dx, dy) = (bx - ax, by - ay);
        ((x - ax) * dy - (y - ay) * dx) / dx.hypot(dy)
    };
    let [a, b, c] = corners;
    side(a, b).max(side(b, c)).max(side(c, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Symbol; 12] = [
        Symbol::Muted,
        Symbol::Hand,
        Symbol::Crown,
        Symbol::ThumbUp,
        Symbol::ThumbDown,
        Symbol::Heart,
        Symbol::Smile,
        Symbol::Laugh,
        Symbol::Sad,
        Symbol::Surprise,
        Symbol::Tick,
        Symbol::Cross,
    ];

    #[test]
    fn each_symbol_fills_a_good_part_of_its_square_and_touches_no_edge() {
        for symbol in ALL {
            let mask = symbol.mask(Rect { x: 0, y: 0, width: 48, height: 48 });
            let covered = (0..48 * 48).filter(|n| mask.at(n % 48, n / 48) > 127).count();
            assert!((300..1_700).contains(&covered), "{symbol:?}: {covered} of 2304");
            let edge = (0..48).flat_map(|n| [(n, 0), (n, 47), (0, n), (47, n)]).any(|(x, y)| mask.at(x, y) > 127);
            assert!(!edge, "{symbol:?}");
        }
    }

    #[test]
    fn emoji_have_their_names_in_mattermost() {
        assert_eq!(Symbol::of_emoji("+1"), Some(Symbol::ThumbUp));
        assert_eq!(Symbol::of_emoji("heart"), Some(Symbol::Heart));
        assert_eq!(Symbol::of_emoji("rocket"), None);
    }
}
