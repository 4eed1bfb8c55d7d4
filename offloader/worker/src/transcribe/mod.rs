//! Transcripts: every speaker's track to words with times and confidence, merged into one conversation.

pub mod job;
pub mod speaker;
pub mod transcript;
