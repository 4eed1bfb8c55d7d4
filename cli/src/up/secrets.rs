//! The secrets between the parts: made once, kept in `<data>/secrets`, readable by the owner alone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// Message server ↔ media node.
pub(crate) const SIGNAL: &str = "signal-token";
/// Signs tap tokens: offloader → media node.
pub(crate) const TAP: &str = "tap-secret";
/// Bearer of the offloader's API.
pub(crate) const OFFLOADER: &str = "offloader-token";

/// The kept secret of that name; made at first use: 32 random bytes, hex.
pub(crate) fn keep(data: &Path, name: &str) -> anyhow::Result<String> {
    let folder = data.join("secrets");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}; choose another folder with --data", folder.display()))?;
    let path = folder.join(name);
    if path.exists() {
        return read(&path);
    }
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    let secret = hex::encode(bytes);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    Ok(secret)
}

/// The secret a person gave, else the one `conclave up` keeps.
pub(crate) fn given_or_kept(given: Option<&str>, data: &Path, name: &str) -> anyhow::Result<String> {
    match given {
        Some(secret) => Ok(secret.to_owned()),
        None => read(&data.join("secrets").join(name))
            .context("give the token by its flag, or the data folder of a running `conclave up` by --data"),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let secret = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let secret = secret.trim().to_owned();
    anyhow::ensure!(!secret.is_empty(), "{} is empty; delete it and start again", path.display());
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let data = tempfile::tempdir().unwrap();
        let first = keep(data.path(), SIGNAL).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(keep(data.path(), SIGNAL).unwrap(), first);
        assert_ne!(keep(data.path(), TAP).unwrap(), first);
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(data.path().join("secrets").join(SIGNAL)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read it");
    }

    #[test]
    fn an_emptied_secret_is_refused() {
        let data = tempfile::tempdir().unwrap();
        keep(data.path(), SIGNAL).unwrap();
        fs::write(data.path().join("secrets").join(SIGNAL), "").unwrap();
        assert!(keep(data.path(), SIGNAL).is_err());
    }
}
