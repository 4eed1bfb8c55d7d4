//! What both kinds of product share: aligned lanes, and where results go.

use std::arch::x86_64::{__m512, __m512i, _mm512_load_ps, _mm512_load_si512, _mm512_mask_storeu_ps};

/// Floats of one register.
pub(super) const LANES: usize = 16;
/// Rows of the left matrix that are worked on at a time: two registers.
pub(super) const ROWS: usize = 2 * LANES;

/// Bytes of sorted weights that are worked on at a time: a quarter of the second cache, so that they stay there while all columns
/// pass by, and results are written in long pieces.
pub(super) const SORTED_BYTES: usize = 256 << 10;

/// One register's worth, aligned so that no load crosses a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lane<T>(pub(super) [T; LANES]);

#[target_feature(enable = "avx512f")]
pub(super) fn load_words(lane: &Lane<u32>) -> __m512i {
    // SAFETY: a lane is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(std::ptr::from_ref(lane).cast()) }
}

#[target_feature(enable = "avx512f")]
pub(super) fn load_floats(lane: &Lane<f32>) -> __m512 {
    // SAFETY: a lane is 64 bytes, aligned to 64.
    unsafe { _mm512_load_ps(lane.0.as_ptr()) }
}

/// The result: `columns` columns of `rows` floats, `stride` apart.
pub(super) struct Out<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) stride: usize,
    pub(super) rows: usize,
}

impl Out<'_> {
    /// A tile's part of one column. Rows beyond the matrix, which a last panel has, fall away.
    #[target_feature(enable = "avx512f")]
    pub(super) fn put(&mut self, row: usize, column: usize, [low, high]: [__m512; 2]) {
        let count = ROWS.min(self.rows - row);
        let to = &mut self.data[column * self.stride + row..][..count];
        let mask = |from: usize| (((1_u32 << count.saturating_sub(from).min(LANES)) - 1) & 0xFFFF) as u16;
        // SAFETY: the masks leave out what lies beyond the slice.
        unsafe {
            _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(0), low);
            _mm512_mask_storeu_ps(to.as_mut_ptr().wrapping_add(LANES), mask(LANES), high);
        }
    }
}
