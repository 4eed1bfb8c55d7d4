//! Generated types of Conclave's own protocols: signalling, media tap, jobs. Holds no logic.
//!
//! The `.proto` files under `conclave/v1/` are the reference; their comments carry the rules.

/// Version 1 of the protocols.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
    tonic::include_proto!("conclave.v1");

    impl std::fmt::Debug for TapMediaKey {
        /// Without the key: it would end in a log.
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("TapMediaKey").field("of", &self.of).field("key_index", &self.key_index).finish_non_exhaustive()
        }
    }
}

/// Encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/conclave.bin"));
