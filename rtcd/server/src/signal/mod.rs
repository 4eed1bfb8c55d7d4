//! Signalling: the gRPC link to message servers, and the dialects carried over it.

pub mod desk;
pub mod grpc;
pub mod livekit;
pub mod media;
pub mod probe;
pub mod seam;
