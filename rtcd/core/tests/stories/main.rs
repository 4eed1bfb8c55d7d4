//! Stories: whole calls in simulation, each named after what must be true.

#![cfg(test)]
#![allow(unreachable_pub, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

mod addresses;
mod audio;
mod backup;
mod consent;
mod data;
mod data_tracks;
mod descriptions;
mod feedback;
mod forged;
mod handshake;
mod hostile;
mod links;
mod mutual;
mod names;
mod network;
mod raw;
mod recovery;
mod replay;
mod shards;
mod sound;
mod sources;
mod svc;
mod tap;
mod verdicts;
mod video;
mod world;
