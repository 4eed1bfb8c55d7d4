//! Replays every committed corpus file, and some thousands of deterministic mutations of each, through its target: what the
//! fuzzers do for hours, every test run does for a second, without their tool chain.

use std::path::PathBuf;

use super::TARGETS;

/// Mutations per corpus file.
const MUTATIONS: usize = 2000;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo test -p rtcd-core write_seeds -- --ignored`", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Marsaglia's xorshift: the same mutations in every run.
struct Xorshift(u64);

impl Xorshift {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len());
            match self.next(7) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next(256) as u8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][self.next(5)],
                4 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                // Lengths and counts: a big-endian pair that is off by little.
                5 if bytes.len() > at + 1 => bytes[at + 1] = bytes[at + 1].wrapping_add(1 + self.next(3) as u8),
                _ => {
                    let from = self.next(other.len());
                    let piece = &other[from..(from + self.next(24)).min(other.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_survives_it() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for (_, bytes) in &files {
            target(bytes);
        }
    }
}

#[test]
fn every_target_survives_mutations_of_its_corpus() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
        for (path, bytes) in &files {
            // Long seeds (browser offers) cost more each, and the core's most of all.
            let budget = if *name == "core" { 400_000 } else { 4_000_000 };
            let rounds = MUTATIONS.min(budget / (bytes.len() + 1));
            for round in 0..rounds {
                let mut mutated = bytes.clone();
                let other = &files[random.next(files.len())].1;
                random.mutate(&mut mutated, other);
                let result = std::panic::catch_unwind(|| target(&mutated));
                assert!(result.is_ok(), "{name}: round {round} of {}: {mutated:02x?}", path.display());
            }
        }
    }
}

/// A target without a file in `fuzz/fuzz_targets` would never be fuzzed.
#[test]
fn every_target_is_a_fuzz_target() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(folder.join(format!("fuzz_targets/{name}.rs")).exists(), "fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in fuzz/Cargo.toml");
    }
}
