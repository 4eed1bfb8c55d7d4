//! Where everybody goes on the picture. Pure arithmetic.

/// What is laid out on. The other numbers here are for a width of 1280 and grow with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    /// Pixels, even.
    pub width: u32,
    /// Pixels, even.
    pub height: u32,
}

/// Space between tiles.
const GAP: u32 = 8;
/// Width of the people's column beside the large place.
const COLUMN: u32 = 264;
/// People beside the large place; more would be too small to read.
pub const COLUMN_TILES: u32 = 5;
/// People in the grid; the loudest are shown when there are more.
pub const GRID_TILES: usize = 16;

/// A rectangle with even sides, as 4:2:0 wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Never zero.
    pub width: u32,
    /// Never zero.
    pub height: u32,
}

/// A picture's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The large place, if there is one: for a shared screen, or for who speaks.
    pub large: Option<Rect>,
    /// People, in their order; beside the large place where there is one.
    pub people: Vec<Rect>,
}

/// Height of the line at the bottom that says how long the call lasts.
const FOOTER: u32 = 32;

impl Canvas {
    /// A length at a width of 1280, as it is here: even.
    pub fn scaled(self, at_1280: u32) -> u32 {
        even(at_1280 * self.width / 1_280).max(2)
    }

    /// All of it.
    pub fn whole(self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// The line at the bottom.
    pub fn footer(self) -> Rect {
        let height = self.scaled(FOOTER).max(FOOTER);
        Rect { x: 0, y: self.height - height, width: self.width, height }
    }

    /// What is left above it.
    pub fn above_footer(self) -> Self {
        Self { height: self.footer().y, ..self }
    }
}

/// Lays out `people` with or without a large place.
pub fn plan(canvas: Canvas, people: usize, large: bool) -> Plan {
    let (gap, side) = (canvas.scaled(GAP), canvas.scaled(COLUMN));
    if large {
        let shown = people.min(COLUMN_TILES as usize) as u32;
        let width = if shown == 0 { canvas.width - 2 * gap } else { canvas.width - side - 3 * gap };
        let tile = even(side * 9 / 16);
        // Five tiles would be higher than the picture: then they become flatter.
        let tile = tile.min(even((canvas.height - gap) / shown.max(1) - gap));
        let people =
            (0..shown).map(|n| Rect { x: canvas.width - side - gap, y: gap + n * (tile + gap), width: side, height: tile }).collect();
        return Plan { large: Some(Rect { x: gap, y: gap, width, height: canvas.height - 2 * gap }), people };
    }
    let shown = people.min(GRID_TILES) as u32;
    let columns = (1..=4).find(|c| c * c >= shown).unwrap_or(4);
    let rows = shown.div_ceil(columns).max(1);
    let width = even((canvas.width - gap) / columns - gap);
    let height = even((canvas.height - gap) / rows - gap);
    let people = (0..shown)
        .map(|n| {
            let (row, column) = (n / columns, n % columns);
            // The last row stands in the middle.
            let in_row = (shown - row * columns).min(columns);
            let left = even((canvas.width - in_row * (width + gap) + gap) / 2);
            Rect { x: left + column * (width + gap), y: gap + row * (height + gap), width, height }
        })
        .collect();
    Plan { large: None, people }
}

/// The next even number below.
pub fn even(n: u32) -> u32 {
    n & !1
}

/// The largest rectangle of a picture's shape in the middle of another.
pub fn fit(width: u32, height: u32, into: Rect) -> Rect {
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (w, h) = (u64::from(into.width), u64::from(into.height));
    let (fw, fh) = if width * h > height * w { (w, w * height / width) } else { (h * width / height, h) };
    let (fw, fh) = (even(fw as u32).max(2).min(into.width), even(fh as u32).max(2).min(into.height));
    Rect { x: into.x + even((into.width - fw) / 2), y: into.y + even((into.height - fh) / 2), width: fw, height: fh }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANVASES: [Canvas; 3] =
        [Canvas { width: 1_280, height: 720 }, Canvas { width: 1_920, height: 1_048 }, Canvas { width: 3_840, height: 2_160 }];

    #[test]
    fn no_tile_leaves_the_picture_or_covers_another() {
        for (canvas, people) in CANVASES.iter().flat_map(|canvas| (0..40).map(move |people| (*canvas, people))) {
            for large in [false, true] {
                let plan = plan(canvas, people, large);
                let all: Vec<Rect> = plan.people.iter().copied().chain(plan.large).collect();
                for (n, a) in all.iter().enumerate() {
                    assert!(a.x + a.width <= canvas.width && a.y + a.height <= canvas.height, "{people} {large} {a:?}");
                    assert!([a.x, a.y, a.width, a.height].iter().all(|v| v % 2 == 0) && a.width > 0 && a.height > 0, "{a:?}");
                    for b in &all[n + 1..] {
                        let apart = a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
                        assert!(apart, "{people} {large}: {a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_picture_keeps_its_shape() {
        let into = Rect { x: 8, y: 8, width: 1_000, height: 704 };
        assert_eq!(fit(1_920, 1_080, into), Rect { x: 8, y: 78, width: 1_000, height: 562 });
        assert_eq!(fit(100, 400, into).height, 704);
        assert_eq!(fit(0, 0, into).height, 704);
    }
}
