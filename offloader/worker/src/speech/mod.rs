//! Speech to words: the model, the voice detector, and the rules that keep invented text out.
//!
//! [`Model`] is loaded once a process and shared; a [`Recogniser`] is one thread's working memory on it. Nothing here knows
//! of calls, tracks or jobs.

pub mod chunks;
mod ending;
pub mod guard;
pub mod model;
pub mod recogniser;
pub mod vad;
mod vocabulary;
pub mod words;

pub use model::{Model, ModelError, ModelFiles};
pub use recogniser::{Heard, Recogniser, Request, Token};
pub use vad::VoiceDetector;
pub use words::Word;
