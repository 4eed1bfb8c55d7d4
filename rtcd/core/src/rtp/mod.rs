//! RTP (RFC 3550): read a header into a small view, write the rewritten one straight into a send slot.
//!
//! Nothing here allocates, decrypts or remembers packets. Bytes come from [`crate::srtp`] (clear text) and go back to it.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod extension;
mod header;
mod red;
mod rtx;
mod seq;
mod values;
mod writer;

pub use extension::{Extension, ExtensionMap, Extensions, Form};
pub use header::{FIXED_LEN, Header, RtpError, is_rtcp, is_rtp};
pub use red::{RED_BLOCKS_MAX, RedBlock, RedBlocks, RedError, write_red_prefix};
pub(crate) use red::{RED_OFFSET_MAX, red_headers_len};
pub use rtx::{RTX_OSN_LEN, rtx_unwrap, rtx_wrap_prefix};
pub use seq::{SeqExtender, TimestampExtender, extend};
pub use values::{AudioLevel, PlayoutDelay, abs_send_time};
pub use writer::{Fixed, HeaderWriter, OwnExtensions, write_forwarded};
