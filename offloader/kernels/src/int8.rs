//! Products of matrices in blocks of 32 small numbers with a scale (`q8_0`): `vpdpbusd` multiplies 64 of them in one instruction,
//! four times what AVX2 does, and sums them without loss.
//!
//! The instruction takes unsigned numbers from one side. The weights get 128 added, and each block begins at −128 times
//! the sum of the other side's numbers, which takes it away again.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lane, Out, ROWS, SORTED_BYTES, load_floats, load_words};

/// Numbers of a block.
const BLOCK: usize = 32;
/// A block as whisper.cpp keeps it: the scale in half precision, then the numbers.
pub(super) const BLOCK_BYTES: usize = 2 + BLOCK;
/// Words of four numbers in a block.
const WORDS: usize = BLOCK / 4;
/// Columns that are worked on at a time: 12 sums and 12 results fill the 32 registers with what they need beside them.
const COLUMNS: usize = 6;
/// Fewer columns are not worth sorting the weights for: each goes by itself.
const FEW: usize = 4;

/// Bytes to fetch ahead where weights are read once: a third quicker than without (of 1 to 8 kB, 2 and 4 were best).
const AHEAD: usize = 2 << 10;

/// A matrix of rows of blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    /// Blocks in a row.
    pub(super) blocks: usize,
}

impl<'a> Blocks<'a> {
    fn row(&self, row: usize) -> &'a [[u8; BLOCK_BYTES]] {
        self.bytes[row * self.stride..][..self.blocks * BLOCK_BYTES].as_chunks().0
    }
}

/// Working memory, kept between calls: at most the right matrix of a call (8 MB for the largest Whisper model) and [`SORTED_BYTES`].
#[derive(Default)]
pub(super) struct Scratch {
    /// Panels of weights, by block and word: four numbers of each of 32 rows.
    panels: Vec<[Lane<u32>; 2]>,
    panel_scales: Vec<[Lane<f32>; 2]>,
    /// The columns in groups, by block and word: four numbers of each column of the group. Columns beyond the matrix are nothing.
    words: Vec<[i32; COLUMNS]>,
    /// By block, what belongs to it.
    scales: Vec<[f32; COLUMNS]>,
    sums: Vec<[i32; COLUMNS]>,
}

/// A column by itself, and what its blocks begin at: −128 times the sums of their words.
#[derive(Clone, Copy)]
struct Part {
    words: [i32; WORDS],
    begin: [i32; WORDS],
    scale: f32,
}

#[target_feature(enable = "f16c")]
fn scale(block: &[u8; BLOCK_BYTES]) -> f32 {
    let half = i32::from(u16::from_le_bytes([block[0], block[1]]));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half)))
}

/// `out[column][row] = left[row] · right[column]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn product(left: Blocks<'_>, right: Blocks<'_>, columns: usize, out: &mut Out<'_>, scratch: &mut Scratch) {
    if columns < FEW {
        for column in 0..columns {
            single(left, right.row(column), &mut out.data[column * out.stride..][..out.rows]);
        }
        return;
    }
    sort_columns(right, columns, scratch);
    let at_a_time = (SORTED_BYTES / (left.blocks * BLOCK)).max(ROWS) / ROWS * ROWS;
    for first_row in (0..out.rows).step_by(at_a_time) {
        let rows = at_a_time.min(out.rows - first_row);
        sort_rows(left, first_row, rows, scratch);
        let groups = scratch.words.chunks_exact(left.blocks * WORDS);
        let belongings = scratch.scales.chunks_exact(left.blocks).zip(scratch.sums.chunks_exact(left.blocks));
        for (group, (words, (scales, sums))) in groups.zip(belongings).enumerate() {
            let first = group * COLUMNS;
            let panels = scratch.panels.chunks_exact(left.blocks * WORDS).zip(scratch.panel_scales.chunks_exact(left.blocks));
            for (row, (panel, panel_scales)) in (first_row..first_row + rows).step_by(ROWS).zip(panels) {
                let results = tile(panel, panel_scales, words, scales, sums);
                for (n, column) in results.iter().enumerate().take(columns - first) {
                    out.put(row, first + n, *column);
                }
            }
        }
    }
}

/// −128 times the sum of a word's numbers.
fn begin(word: [u8; 4]) -> i32 {
    -128 * word.iter().map(|&b| i32::from(b.cast_signed())).sum::<i32>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn sort_columns(right: Blocks<'_>, columns: usize, scratch: &mut Scratch) {
    let groups = columns.div_ceil(COLUMNS);
    scratch.words.clear();
    scratch.words.resize(groups * right.blocks * WORDS, [0; COLUMNS]);
    scratch.scales.clear();
    scratch.scales.resize(groups * right.blocks, [0.0; COLUMNS]);
    scratch.sums.clear();
    scratch.sums.resize(groups * right.blocks, [0; COLUMNS]);
    for column in 0..columns {
        let (group, n) = (column / COLUMNS * right.blocks, column % COLUMNS);
        let sorted = scratch.words[group * WORDS..].as_chunks_mut::<WORDS>().0.iter_mut();
        let belongings = scratch.scales[group..].iter_mut().zip(&mut scratch.sums[group..]);
        for (block, (sorted, (scale_to, sum))) in right.row(column).iter().zip(sorted.zip(belongings)) {
            let mut total = 0;
            for (to, &word) in sorted.iter_mut().zip(block[2..].as_chunks::<4>().0) {
                to[n] = i32::from_le_bytes(word);
                total += begin(word);
            }
            scale_to[n] = scale(block);
            sum[n] = total;
        }
    }
}

/// Rows that a last panel lacks keep what was there: their results fall away.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn sort_rows(left: Blocks<'_>, first: usize, rows: usize, scratch: &mut Scratch) {
    let panels = rows.div_ceil(ROWS) * left.blocks;
    scratch.panels.resize(panels * WORDS, [Lane([0; LANES]); 2]);
    scratch.panel_scales.resize(panels, [Lane([0.0; LANES]); 2]);
    for row in 0..rows {
        let (panel, half, lane) = (row / ROWS * left.blocks, row / LANES % 2, row % LANES);
        let sorted = scratch.panels[panel * WORDS..].as_chunks_mut::<WORDS>().0.iter_mut().zip(&mut scratch.panel_scales[panel..]);
        for (block, (sorted, scales)) in left.row(first + row).iter().zip(sorted) {
            scales[half].0[lane] = scale(block);
            for (to, &word) in sorted.iter_mut().zip(block[2..].as_chunks::<4>().0) {
                to[half].0[lane] = u32::from_le_bytes(word) ^ 0x8080_8080;
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile(
    panel: &[[Lane<u32>; 2]],
    panel_scales: &[[Lane<f32>; 2]],
    words: &[[i32; COLUMNS]],
    scales: &[[f32; COLUMNS]],
    sums: &[[i32; COLUMNS]],
) -> [[__m512; 2]; COLUMNS] {
    let mut results = [[_mm512_setzero_ps(); 2]; COLUMNS];
    let weights = panel.as_chunks::<WORDS>().0.iter().zip(panel_scales);
    let columns = words.as_chunks::<WORDS>().0.iter().zip(scales.iter().zip(sums));
    for ((weights, weight_scales), (words, (scales, sums))) in weights.zip(columns) {
        let mut dots = [[_mm512_setzero_si512(); 2]; COLUMNS];
        for n in 0..COLUMNS {
            dots[n] = [_mm512_set1_epi32(sums[n]); 2];
        }
        for (weight, word) in weights.iter().zip(words) {
            let (low, high) = (load_words(&weight[0]), load_words(&weight[1]));
            for n in 0..COLUMNS {
                let column = _mm512_set1_epi32(word[n]);
                dots[n][0] = _mm512_dpbusd_epi32(dots[n][0], low, column);
                dots[n][1] = _mm512_dpbusd_epi32(dots[n][1], high, column);
            }
        }
        let (low, high) = (load_floats(&weight_scales[0]), load_floats(&weight_scales[1]));
        for n in 0..COLUMNS {
            let column = _mm512_set1_ps(scales[n]);
            results[n][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[n][0]), _mm512_mul_ps(low, column), results[n][0]);
            results[n][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[n][1]), _mm512_mul_ps(high, column), results[n][1]);
        }
    }
    results
}

/// One column: every weight is read once, so memory is the bound, and they are taken as they lie.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn single(left: Blocks<'_>, column: &[[u8; BLOCK_BYTES]], results: &mut [f32]) {
    let mut parts = Vec::with_capacity(column.len());
    for block in column {
        let mut part = Part { words: [0; WORDS], begin: [0; WORDS], scale: scale(block) };
        for (n, &word) in block[2..].as_chunks::<4>().0.iter().enumerate() {
            (part.words[n], part.begin[n]) = (i32::from_le_bytes(word), begin(word));
        }
        parts.push(part);
    }
    let (fours, rest) = results.as_chunks_mut::<4>();
    let whole = fours.len() * 4;
    for (n, four) in fours.iter_mut().enumerate() {
        *four = rows::<4>(left, n * 4, &parts);
    }
    for (n, one) in rest.iter_mut().enumerate() {
        [*one] = rows::<1>(left, whole + n, &parts);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn rows<const N: usize>(left: Blocks<'_>, first: usize, parts: &[Part]) -> [f32; N] {
    let mut weights: [&[[u8; BLOCK_BYTES]]; N] = [&[]; N];
    for (n, row) in weights.iter_mut().enumerate() {
        *row = &left.row(first + n)[..parts.len()];
    }
    let mut results = [_mm256_setzero_ps(); N];
    let sign = _mm256_set1_epi8(-128);
    for (block, part) in parts.iter().enumerate() {
        // SAFETY: both are arrays of 32 bytes.
        let (column, begin) = unsafe { (_mm256_loadu_si256(part.words.as_ptr().cast()), _mm256_loadu_si256(part.begin.as_ptr().cast())) };
        for n in 0..N {
            let bytes = &weights[n][block];
            // SAFETY: 32 bytes follow the scale; an address to fetch ahead need not exist.
            let numbers = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
                _mm256_loadu_si256(bytes[2..].as_ptr().cast())
            };
            let dot = _mm256_dpbusd_epi32(begin, _mm256_xor_si256(numbers, sign), column);
            results[n] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(scale(bytes) * part.scale), results[n]);
        }
    }
    let mut sums = [0.0; N];
    for (to, result) in sums.iter_mut().zip(results) {
        let half = _mm_add_ps(_mm256_castps256_ps128(result), _mm256_extractf128_ps::<1>(result));
        let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        *to = _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
    }
    sums
}
