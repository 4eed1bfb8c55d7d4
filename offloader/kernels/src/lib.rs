//! Matrix products for CPUs with AVX-512 and VNNI, chosen when the program runs; all others keep whisper.cpp's own.
//!
//! The programs are built for AVX2, so that they run on any server of the last ten years, and whisper.cpp chooses its kernels when
//! it is built. Nearly all of its time goes to one function, `llamafile_sgemm`; the linker's `--wrap` (build.rs) leads calls of it
//! here, and `__real_…` is the original (docs/decisions/0028).
//!
//! Raw pointers of whisper.cpp become slices in `wrap.rs`, of the sizes that it tells; the rest works on slices, but for the loads.
#![allow(unsafe_code, reason = "called by C with pointers, and SIMD loads take pointers")]

#[cfg(target_arch = "x86_64")]
mod attention;
#[cfg(target_arch = "x86_64")]
mod float;
#[cfg(target_arch = "x86_64")]
mod int8;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod wrap;

#[cfg(target_arch = "x86_64")]
pub use wrap::Done;

/// What this thread has done here so far; nothing on a CPU that has its own kernels.
#[cfg(target_arch = "x86_64")]
pub fn done() -> Option<Done> {
    wrap::usable().then(wrap::done)
}

/// What this CPU is given, for the log.
pub fn level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if wrap::usable() {
        return "AVX-512 VNNI";
    }
    "whisper.cpp's own"
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::attention::{self, Head};
    use super::float::{self, Matrix, Right};
    use super::int8::{self, BLOCK_BYTES, Blocks};
    use super::lanes::Out;

    /// Numbers without a pattern, between −1 and 1.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    /// The nearest number in half precision, for numbers that have one.
    fn half(number: f32) -> u16 {
        let bits = number.to_bits();
        let (sign, exponent, rest) = ((bits >> 16) as u16 & 0x8000, (bits >> 23) as i32 & 0xFF, bits >> 13 & 0x3FF);
        match exponent - 112 {
            e @ 1..31 => sign | (e as u16) << 10 | rest as u16,
            _ => sign,
        }
    }

    fn whole(half: u16) -> f32 {
        let exponent = half >> 10 & 0x1F;
        let number = if exponent == 0 { 0.0 } else { (1.0 + f32::from(half & 0x3FF) / 1_024.0) * 2_f32.powi(i32::from(exponent) - 15) };
        if half & 0x8000 == 0 { number } else { -number }
    }

    fn halves(count: usize, seed: u32) -> Vec<u16> {
        numbers(count, seed).into_iter().map(half).collect()
    }

    fn close(ours: &[f32], right: &[f32], most: f32) {
        for (n, (ours, right)) in ours.iter().zip(right).enumerate() {
            assert!((ours - right).abs() <= most, "{n}: {ours}, not {right}");
        }
    }

    #[test]
    fn products_of_blocks_are_right_at_every_edge() {
        if !super::wrap::usable() {
            return;
        }
        let mut scratch = int8::Scratch::default();
        for (rows, columns, blocks) in [(32, 1, 1), (70, 1, 12), (33, 3, 2), (32, 4, 12), (100, 7, 3), (1_601, 13, 12), (65, 6, 48)] {
            let matrix = |count: usize, seed: u32| -> Vec<u8> {
                let noise = numbers(count * blocks * BLOCK_BYTES, seed);
                let mut bytes: Vec<u8> = noise.iter().map(|n| (n * 127.4).round() as i8 as u8).collect();
                for (n, block) in bytes.chunks_exact_mut(BLOCK_BYTES).enumerate() {
                    // The most and the least an int8 holds, too.
                    block[2] = 127;
                    block[3] = 128;
                    block[..2].copy_from_slice(&half(0.001 + n as f32 % 7.0 * 0.002).to_le_bytes());
                }
                bytes
            };
            let (left, right) = (matrix(rows, 1), matrix(columns, 2));
            let value = |bytes: &[u8], row: usize, k: usize| {
                let block = &bytes[(row * blocks + k / 32) * BLOCK_BYTES..][..BLOCK_BYTES];
                f64::from(whole(u16::from_le_bytes([block[0], block[1]]))) * f64::from(block[2 + k % 32] as i8)
            };
            // A gap after each column, which nothing may be written to.
            let stride = rows + 3;
            let mut data = vec![7.0; stride * columns];
            let of = |bytes| Blocks { bytes, stride: blocks * BLOCK_BYTES, blocks };
            // SAFETY: the CPU has what it needs.
            unsafe { int8::product(of(&left), of(&right), columns, &mut Out { data: &mut data, stride, rows }, &mut scratch) };
            for (column, ours) in data.chunks(stride).enumerate() {
                let wanted: Vec<f32> = (0..rows)
                    .map(|row| (0..blocks * 32).map(|k| value(&left, row, k) * value(&right, column, k)).sum::<f64>() as f32)
                    .collect();
                close(&ours[..rows], &wanted, 2e-3);
                assert_eq!(ours[rows..], [7.0; 3], "{rows} × {columns}");
            }
        }
    }

    #[test]
    fn products_of_halves_are_right_at_every_edge() {
        if !super::wrap::usable() {
            return;
        }
        let mut scratch = float::Scratch::default();
        for (rows, columns, length) in [(32, 8, 64), (33, 9, 17), (100, 24, 240), (64, 13, 1_500), (400, 15, 1_152)] {
            let (left, right) = (halves(rows * length, 3), halves(columns * length, 4));
            let right_whole: Vec<f32> = right.iter().map(|&half| whole(half)).collect();
            let wanted: Vec<f32> = (0..columns * rows)
                .map(|n| {
                    let (left, right) = (&left[n % rows * length..][..length], &right_whole[n / rows * length..][..length]);
                    left.iter().zip(right).map(|(&left, right)| f64::from(whole(left)) * f64::from(*right)).sum::<f64>() as f32
                })
                .collect();
            let left = Matrix { data: &left[..], stride: length, length };
            let kinds = [
                Right::Half(Matrix { data: &right, stride: length, length }),
                Right::Whole(Matrix { data: &right_whole, stride: length, length }),
            ];
            for kind in kinds {
                let mut data = vec![7.0; rows * columns];
                // SAFETY: the CPU has what it needs.
                unsafe { float::product(left, kind, columns, &mut Out { data: &mut data, stride: rows, rows }, &mut scratch) };
                close(&data, &wanted, 1e-3);
            }
        }
    }

    #[test]
    fn attention_is_the_softmax_of_its_scores_times_values() {
        if !super::wrap::usable() {
            return;
        }
        let mut scratch = attention::Scratch::default();
        for (key_count, query_count) in [(64, 64), (100, 65), (1_500, 70)] {
            let (keys, values) = (halves(key_count * 64, 5), halves(key_count * 64, 6));
            // Scores of up to some 60: the largest weigh nearly all.
            let queries: Vec<f32> = numbers(query_count * 64, 7).iter().map(|n| n * 20.0).collect();
            let mut data = vec![7.0; query_count * 64];
            let head = Head {
                keys: Matrix { data: &keys, stride: 64, length: 64 },
                values: Matrix { data: &values, stride: key_count, length: key_count },
                queries: Matrix { data: &queries, stride: 64, length: 64 },
                query_count,
                scale: 0.25,
            };
            // SAFETY: the CPU has what it needs.
            unsafe { attention::attend(&head, &mut Out { data: &mut data, stride: 64, rows: 64 }, &mut scratch) };
            for (query, ours) in queries.chunks(64).zip(data.chunks(64)) {
                let score = |key: &[u16]| 0.25 * key.iter().zip(query).map(|(&k, &q)| f64::from(whole(k)) * f64::from(q)).sum::<f64>();
                let scores: Vec<f64> = keys.chunks(64).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let all: f64 = weights.iter().sum();
                let wanted: Vec<f32> = values
                    .chunks(key_count)
                    .map(|row| (row.iter().zip(&weights).map(|(&v, w)| f64::from(whole(v)) * w).sum::<f64>() / all) as f32)
                    .collect();
                close(ours, &wanted, 1e-4);
            }
        }
    }
}
