//! Layers inside one stream (SVC): VP9 and AV1, and whatever else comes with a dependency descriptor.
//!
//! [`Scalable`] is the publisher's half: what its frames need of each other, and what each step costs. [`Selection`] is one viewer's: which
//! frames it gets, under which numbers. A viewer goes down at any frame where that breaks nothing, and up only where the stream says
//! that it may; where it never says so, a key frame is asked for.

mod ladder;
mod rates;
mod selection;
mod stream;

pub(crate) use ladder::Ladder;
pub(crate) use selection::{Chosen, Selection};
pub(crate) use stream::{Noted, Part, Scalable};
