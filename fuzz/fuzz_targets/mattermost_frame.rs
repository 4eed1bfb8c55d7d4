//! See `fuzzing.rs` in the folder of these modules. They are included, not linked: the daemon's other dependencies would only be built for
//! nothing here.
#![no_main]
#![allow(dead_code, unreachable_pub)]

#[path = "../../rtcd/server/src/signal/mattermost/channel.rs"]
mod channel;
#[path = "../../rtcd/server/src/signal/mattermost/frames.rs"]
mod frames;
#[path = "../../rtcd/server/src/signal/mattermost/fuzzing.rs"]
mod fuzzing;
#[path = "../../rtcd/server/src/signal/mattermost/msgpack.rs"]
mod msgpack;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::frame(data));
