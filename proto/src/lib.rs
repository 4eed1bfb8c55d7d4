//! Generated types of Conclave's own protocols: signalling, media tap, jobs. Holds no logic.
//!
//! The `.proto` files under `conclave/v1/` are the reference; their comments carry the rules.

/// Version 1 of the protocols.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    tonic::include_proto!("conclave.v1");
}

/// Encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/conclave.bin"));
