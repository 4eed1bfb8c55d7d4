//! One file for people out of a recording: everybody's sound mixed, the shared screen and cameras laid out with names.
//!
//! Reads closed segments only, one of each track at a time, so that memory does not grow with the call. Can be repeated at any
//! time; runs at the lowest priority.

pub mod depacket;
pub mod effort;
pub mod focus;
pub mod job;
pub mod layout;
pub mod line;
pub mod mask;
pub mod media;
pub mod people;
pub mod picture;
pub mod portraits;
pub mod scene;
pub mod signals;
pub mod sound;
pub mod still;
pub mod symbol;
pub mod theme;
pub mod tile;
pub mod track;
pub mod video;
