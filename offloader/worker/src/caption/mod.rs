//! Live captions of a running call.
//!
//! [`live`] decides what is heard when and what may be shown; [`ears`] turns packets into sound and speech probabilities; [`job`]
//! joins them with the tap, the recognisers' threads and the clock.

pub mod ears;
pub mod job;
pub mod live;
pub mod stabilise;
