//! The site's keys: read from their files, made at the first start.

use std::path::Path;

use anyhow::Context;
use archive::keys::{PublicKey, SiteKey, SiteSigner};

use crate::settings::Settings;

/// Both keys of the site.
pub struct Keys {
    /// Wraps data keys.
    pub site: SiteKey,
    /// Signs, and knows the site's older keys.
    pub signer: SiteSigner,
}

impl Keys {
    /// Reads the key files; makes those that are not there.
    pub fn load(settings: &Settings) -> anyhow::Result<Self> {
        let site_text = read_or_make(&settings.site_key_file, || Ok(format!("{}\n", SiteKey::generate()?.to_hex()).into_bytes()))?;
        let site_text = String::from_utf8(site_text).context("OFFLOADER_SITE_KEY_FILE is not text")?;
        let site =
            SiteKey::from_hex(&site_text).with_context(|| format!("OFFLOADER_SITE_KEY_FILE {}", settings.site_key_file.display()))?;
        let signing = read_or_make(&settings.signing_key_file, || Ok(SiteSigner::generate_pkcs8()?))?;
        let signer = SiteSigner::from_pkcs8(&signing)
            .with_context(|| format!("OFFLOADER_SIGNING_KEY_FILE {}", settings.signing_key_file.display()))?;
        let older = settings.older_signing_keys.iter().map(|path| read_public(path)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { site, signer: signer.with_older(older) })
    }
}

/// The same form as `conclave verify --key` takes, and as a bundle has it.
fn read_public(path: &Path) -> anyhow::Result<PublicKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("OFFLOADER_OLDER_SIGNING_KEYS: cannot read {}", path.display()))?;
    PublicKey::from_pem(&text).with_context(|| {
        format!(
            "OFFLOADER_OLDER_SIGNING_KEYS: {}: take public-key.pem of a bundle of that time, or what `openssl pkey -pubout` writes",
            path.display()
        )
    })
}

/// A secret that nobody has set: made once, kept beside the keys for us alone.
pub(crate) fn secret(settings: &Settings, name: &str) -> anyhow::Result<String> {
    let path = settings.data.join("keys").join(name);
    let make = || {
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the operating system gives no randomness"))?;
        Ok(format!("{}\n", hex::encode(random)).into_bytes())
    };
    let text = String::from_utf8(read_or_make(&path, make)?).with_context(|| format!("{} is not text", path.display()))?;
    let secret = text.trim().to_owned();
    anyhow::ensure!(secret.len() >= 16, "{} holds no secret: delete it, and another one is made", path.display());
    Ok(secret)
}

fn read_or_make(path: &Path, make: impl FnOnce() -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    use std::io::Write;
    match std::fs::read(path) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read the key {}", path.display())),
    }
    if let Some(parent) = path.parent() {
        private_dir(parent)?;
    }
    let bytes = make()?;
    let making = path.with_extension(format!("{}.part", uuid::Uuid::new_v4().simple()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&making).with_context(|| format!("cannot make the key {}", making.display()))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    // Whole or not at all, and only one: another offloader may make its first start in this very moment.
    let linked = std::fs::hard_link(&making, path);
    std::fs::remove_file(&making)?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(std::fs::read(path)?),
        linked => linked.with_context(|| format!("cannot make the key {}", path.display()))?,
    }
    tracing::info!(path = %path.display(), "made a new key: keep a copy of it in a safe place, recordings cannot be opened without");
    Ok(bytes)
}

/// Makes a folder that only our user may enter.
pub fn private_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}
