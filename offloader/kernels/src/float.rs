//! Products of matrices of floats, of which the left is kept in half precision: attention and the convolutions before it.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lane, Out, ROWS, SORTED_BYTES, load_floats};

/// Columns that are worked on at a time: 16 results keep the multipliers busy, and 8 addresses fit into the registers for them.
pub(super) const COLUMNS: usize = 8;

/// A matrix whose rows lie `stride` numbers apart and are `length` long.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
    pub(super) length: usize,
}

impl<'a, T> Matrix<'a, T> {
    fn row(&self, row: usize) -> &'a [T] {
        &self.data[row * self.stride..][..self.length]
    }
}

/// The right matrix: half precision where whisper.cpp has brought it to that, else as it is.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    Half(Matrix<'a, u16>),
    Whole(Matrix<'a, f32>),
}

/// Working memory, kept between calls: the right matrix of one head (9 MB for 30 s of sound) and [`SORTED_BYTES`].
#[derive(Default)]
pub(super) struct Scratch {
    /// Panels of the left matrix, number by number: each of 32 rows.
    panels: Vec<[Lane<f32>; 2]>,
    columns: Vec<f32>,
    row: Vec<f32>,
}

/// `out[column][row] = left[row] · right[column]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn product(left: Matrix<'_, u16>, right: Right<'_>, columns: usize, out: &mut Out<'_>, scratch: &mut Scratch) {
    let length = left.length;
    if let Right::Half(half) = right {
        scratch.columns.resize(columns * length, 0.0);
        for (column, to) in scratch.columns.chunks_exact_mut(length).enumerate() {
            widen(half.row(column), to);
        }
    }
    let whole = match right {
        Right::Half(_) => Matrix { data: &scratch.columns, stride: length, length },
        Right::Whole(whole) => whole,
    };
    let at_a_time = (SORTED_BYTES / (length * size_of::<f32>())).max(ROWS) / ROWS * ROWS;
    for first_row in (0..out.rows).step_by(at_a_time) {
        let rows = at_a_time.min(out.rows - first_row);
        sort_rows(left, first_row, rows, &mut scratch.panels, &mut scratch.row);
        let mut column = 0;
        while column < columns {
            let width = if columns - column >= COLUMNS { COLUMNS } else { 1 };
            for (row, panel) in (first_row..first_row + rows).step_by(ROWS).zip(scratch.panels.chunks_exact(length)) {
                match width {
                    COLUMNS => tile::<COLUMNS>(panel, whole, row, column, out),
                    _ => tile::<1>(panel, whole, row, column, out),
                }
            }
            column += width;
        }
    }
}

#[target_feature(enable = "avx512f,avx2,f16c")]
fn widen(half: &[u16], to: &mut [f32]) {
    let (whole, rest) = half.as_chunks::<LANES>();
    let (to_whole, to_rest) = to.as_chunks_mut::<LANES>();
    for (from, to) in whole.iter().zip(to_whole) {
        // SAFETY: 16 numbers each, 32 bytes and 64.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast()))) };
    }
    for (&from, to) in rest.iter().zip(to_rest) {
        *to = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(from))));
    }
}

/// Rows that a last panel lacks keep what was there: their results fall away.
#[target_feature(enable = "avx512f,avx2,f16c")]
pub(super) fn sort_rows(left: Matrix<'_, u16>, first: usize, rows: usize, panels: &mut Vec<[Lane<f32>; 2]>, wide: &mut Vec<f32>) {
    panels.resize(rows.div_ceil(ROWS) * left.length, [Lane([0.0; LANES]); 2]);
    wide.resize(left.length, 0.0);
    for row in 0..rows {
        widen(left.row(first + row), wide);
        let (panel, half, lane) = (row / ROWS * left.length, row / LANES % 2, row % LANES);
        for (to, &number) in panels[panel..].iter_mut().zip(&*wide) {
            to[half].0[lane] = number;
        }
    }
}

#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn tile<const N: usize>(panel: &[[Lane<f32>; 2]], right: Matrix<'_, f32>, row: usize, first: usize, out: &mut Out<'_>) {
    let mut columns = [std::ptr::null::<f32>(); N];
    for (n, column) in columns.iter_mut().enumerate() {
        *column = right.row(first + n)[..panel.len()].as_ptr();
    }
    let mut results = [[_mm512_setzero_ps(); 2]; N];
    for (k, [low, high]) in panel.iter().enumerate() {
        let (low, high) = (load_floats(low), load_floats(high));
        for n in 0..N {
            // SAFETY: each column is as long as the panel.
            let column = _mm512_set1_ps(unsafe { *columns[n].add(k) });
            results[n][0] = _mm512_fmadd_ps(low, column, results[n][0]);
            results[n][1] = _mm512_fmadd_ps(high, column, results[n][1]);
        }
    }
    for (n, column) in results.into_iter().enumerate() {
        out.put(row, first + n, column);
    }
}
