//! An encoder layer's attention in one go: a few queries' scores are made, weighed and used while they are in the nearest cache.
//!
//! whisper.cpp makes all scores of all heads first: 19 MB for 15 s of sound with the smallest model, which then go to memory and back
//! twice. That took as long as the arithmetic.

use std::arch::x86_64::*;

use super::float::{COLUMNS, Matrix, sort_rows, tile};
use super::lanes::{LANES, Lane, Out, ROWS};

/// Working memory, kept between calls: keys and values of one head, and the scores of [`COLUMNS`] queries (0.8 MB for 30 s of sound).
#[derive(Default)]
pub(super) struct Scratch {
    keys: Vec<[Lane<f32>; 2]>,
    values: Vec<[Lane<f32>; 2]>,
    wide: Vec<f32>,
    scores: Vec<f32>,
}

/// One head. Rows of `values` are dimensions, their numbers belong to keys.
pub(super) struct Head<'a> {
    pub(super) keys: Matrix<'a, u16>,
    pub(super) values: Matrix<'a, u16>,
    pub(super) queries: Matrix<'a, f32>,
    pub(super) query_count: usize,
    pub(super) scale: f32,
}

/// `out[query] = softmax(scale · query · keys) · values`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn attend(head: &Head<'_>, out: &mut Out<'_>, scratch: &mut Scratch) {
    let Scratch { keys, values, wide, scores } = scratch;
    let (dimensions, key_count) = (head.keys.length, head.values.length);
    sort_rows(head.keys, 0, key_count, keys, wide);
    sort_rows(head.values, 0, out.rows, values, wide);
    scores.resize(COLUMNS * key_count, 0.0);
    let mut first = 0;
    while first < head.query_count {
        let queries = Matrix { data: &head.queries.data[first * head.queries.stride..], ..head.queries };
        let width = if head.query_count - first >= COLUMNS { COLUMNS } else { 1 };
        let scored = &mut Out { data: scores, stride: key_count, rows: key_count };
        for (row, panel) in (0..key_count).step_by(ROWS).zip(keys.chunks_exact(dimensions)) {
            match width {
                COLUMNS => tile::<COLUMNS>(panel, queries, row, 0, scored),
                _ => tile::<1>(panel, queries, row, 0, scored),
            }
        }
        let mut sums = [0.0; COLUMNS];
        for (sum, scores) in sums.iter_mut().zip(scores.chunks_exact_mut(key_count)).take(width) {
            *sum = weigh(scores, head.scale);
        }
        let weights = Matrix { data: scores.as_slice(), stride: key_count, length: key_count };
        let to = &mut Out { data: &mut out.data[first * out.stride..], stride: out.stride, rows: out.rows };
        for (row, panel) in (0..out.rows).step_by(ROWS).zip(values.chunks_exact(key_count)) {
            match width {
                COLUMNS => tile::<COLUMNS>(panel, weights, row, 0, to),
                _ => tile::<1>(panel, weights, row, 0, to),
            }
        }
        for (n, sum) in sums.iter().enumerate().take(width) {
            to.data[n * to.stride..][..to.rows].iter_mut().for_each(|number| *number /= sum);
        }
        first += width;
    }
}

/// Scores become what softmax has above the line; gives what it has below.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn weigh(scores: &mut [f32], scale: f32) -> f32 {
    let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut from = 0;
    while from < scores.len() {
        most = _mm512_max_ps(most, take(&scores[from..], f32::NEG_INFINITY));
        from += LANES;
    }
    let most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    let mut sum = _mm512_setzero_ps();
    for part in scores.chunks_mut(LANES) {
        let weights = exp(_mm512_mul_ps(_mm512_sub_ps(take(part, f32::NEG_INFINITY), most), _mm512_set1_ps(scale)));
        sum = _mm512_add_ps(sum, weights);
        // SAFETY: the mask leaves out what lies beyond the part.
        unsafe { _mm512_mask_storeu_ps(part.as_mut_ptr(), mask(part.len()), weights) };
    }
    _mm512_reduce_add_ps(sum)
}

fn mask(count: usize) -> u16 {
    if count >= LANES { u16::MAX } else { (1 << count) - 1 }
}

/// The first numbers of a slice; `rest` where it is shorter than a register.
#[target_feature(enable = "avx512f")]
fn take(numbers: &[f32], rest: f32) -> __m512 {
    // SAFETY: the mask leaves out what lies beyond the slice.
    unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(rest), mask(numbers.len()), numbers.as_ptr()) }
}

/// e to the power of numbers that are not positive: 2ⁿ times a polynomial for what is left of it, right to seven digits.
#[target_feature(enable = "avx512f,fma")]
fn exp(x: __m512) -> __m512 {
    // Below this all is nothing; infinity would give "not a number" on the way.
    let x = _mm512_max_ps(x, _mm512_set1_ps(-104.0));
    let n = _mm512_roundscale_ps::<8>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, of which the first has so few digits that its product with n is exact.
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.0 / 720.0);
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(factor));
    }
    _mm512_scalef_ps(p, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "avx512f,fma")]
    fn one(x: f32) -> f32 {
        _mm512_cvtss_f32(exp(_mm512_set1_ps(x)))
    }

    #[test]
    fn exp_is_right_to_six_digits() {
        if !crate::wrap::usable() {
            return;
        }
        for n in 0..100_000 {
            let x = -(n as f32) / 1_000.0;
            // SAFETY: the CPU has it.
            let ours = unsafe { one(x) };
            assert!((ours - x.exp()).abs() <= 1e-6 * x.exp() + 1e-38, "{x}: {ours}, not {}", x.exp());
        }
        // SAFETY: the CPU has it.
        assert_eq!(unsafe { (one(f32::NEG_INFINITY), one(0.0)) }, (0.0, 1.0));
    }
}
