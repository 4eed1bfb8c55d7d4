//! Signalling: the gRPC link to message servers with the dialects carried over it, and Mattermost's own routes.

pub mod bucket;
pub mod desk;
pub mod grpc;
pub mod livekit;
pub mod livekit_server;
pub mod mattermost;
pub mod media;
pub mod probe;
pub mod seam;
