//! Which file of a folder of models a job gets that names a size, as Mattermost's Calls plugin does.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Entries of the folder that are looked at.
const ENTRIES_MAX: usize = 1_000;
/// Bytes of its list of sums that are read.
const SUMS_MAX: u64 = 1 << 20;
/// As `sha256sum` writes it, where a site keeps one.
const SUMS: &str = "SHA256SUMS";

/// A model of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its SHA-256, where the folder's `SHA256SUMS` tells.
    pub sha256: Option<String>,
}

/// The model of this `size` (`tiny`, `base`, …) for speech in this `language`, two letters; `None` where it is not known.
///
/// Files have whisper.cpp's names: `ggml-SIZE.bin`, with `.en` behind the size where they know English only, then perhaps a version and
/// a quantisation (`ggml-base.en-q8_0.bin`, `ggml-large-v3-turbo.bin`). For English one that knows nothing else goes first: of the same
/// size it makes fewer mistakes. Of several the largest is taken, which is the one that was cut least.
pub fn find(folder: &Path, size: &str, language: Option<&str>) -> Option<Found> {
    let entries = std::fs::read_dir(folder).inspect_err(|error| {
        tracing::warn!(folder = %folder.display(), %error, "the folder of models cannot be read: check OFFLOADER_MODELS_DIR");
    });
    let english = language == Some("en");
    let best = entries
        .ok()?
        .take(ENTRIES_MAX)
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let english_only = english_only(&name, size)?;
            let metadata = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
            (english || !english_only).then_some((english_only, metadata.len(), name))
        })
        .max()?;
    let (_, _, name) = best;
    Some(Found { sha256: sum(folder, &name), path: folder.join(name) })
}

/// Whether a file of this name knows English only; `None` if it is no model of this size.
fn english_only(name: &str, size: &str) -> Option<bool> {
    let rest = name.strip_prefix("ggml-")?.strip_suffix(".bin")?.strip_prefix(size)?;
    let (english, rest) = rest.strip_prefix(".en").map_or((false, rest), |rest| (true, rest));
    (rest.is_empty() || rest.starts_with('-')).then_some(english)
}

fn sum(folder: &Path, name: &str) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(folder.join(SUMS)).ok()?.take(SUMS_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let (sum, file) = line.split_once(' ')?;
        // A star stands for "read as binary".
        (file.trim_start().trim_start_matches('*') == name).then(|| sum.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, size) in files {
            std::fs::write(folder.path().join(name), vec![0; *size]).unwrap();
        }
        folder
    }

    fn named(folder: &tempfile::TempDir, size: &str, language: Option<&str>) -> Option<String> {
        let found = find(folder.path(), size, language)?;
        assert_eq!(found.path.parent(), Some(folder.path()));
        Some(found.path.file_name()?.to_str()?.to_owned())
    }

    #[test]
    fn a_size_names_a_file_and_english_its_own() {
        let folder = folder(&[
            ("ggml-tiny.bin", 7),
            ("ggml-base.bin", 9),
            ("ggml-base-q8_0.bin", 5),
            ("ggml-base.en-q5_1.bin", 3),
            ("ggml-large-v3.bin", 9),
            ("ggml-large-v3-turbo-q5_0.bin", 4),
            ("ggml-smallest.bin", 1),
            ("base.bin", 99),
            ("ggml-silero-v6.2.0.bin", 1),
        ]);
        std::fs::create_dir(folder.path().join("ggml-medium.bin")).unwrap();
        let found = |size, language| named(&folder, size, language);
        assert_eq!(found("base", None).as_deref(), Some("ggml-base.bin"), "the largest, not a quantised one");
        assert_eq!(found("base", Some("de")).as_deref(), Some("ggml-base.bin"));
        assert_eq!(found("base", Some("en")).as_deref(), Some("ggml-base.en-q5_1.bin"));
        assert_eq!(found("tiny", Some("en")).as_deref(), Some("ggml-tiny.bin"));
        assert_eq!(found("large", None).as_deref(), Some("ggml-large-v3.bin"));
        assert_eq!(found("small", None), None, "smallest is another word");
        assert_eq!(found("medium", None), None, "a folder");
        assert_eq!(find(&folder.path().join("nowhere"), "base", None), None);
    }

    #[test]
    fn what_knows_english_only_is_for_nobody_else() {
        let folder = folder(&[("ggml-small.en.bin", 9)]);
        assert_eq!(named(&folder, "small", Some("fr")), None);
        assert_eq!(named(&folder, "small", None), None, "it may be any language");
        assert!(named(&folder, "small", Some("en")).is_some());
    }

    #[test]
    fn sums_are_read_where_the_site_keeps_them() {
        let folder = folder(&[("ggml-base.bin", 9), ("ggml-tiny.bin", 9), ("ggml-small.bin", 9)]);
        std::fs::write(folder.path().join(SUMS), "aa11  ggml-base.bin\nbb22 *ggml-tiny.bin\nnonsense\n").unwrap();
        let sum = |size| find(folder.path(), size, None).unwrap().sha256;
        assert_eq!((sum("base").as_deref(), sum("tiny").as_deref(), sum("small")), (Some("aa11"), Some("bb22"), None));
    }
}
