//! The object store: a local folder by default, S3 by setting. What lies there is never overwritten; a recording is deleted as a whole.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use archive::tree::Hash;
use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use tokio::io::AsyncReadExt;

use crate::keys::private_dir;
use crate::limits::PART_BYTES;

/// Reading or writing an object failed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The store.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
    /// The local file.
    #[error("cannot read {0}: {1}")]
    File(String, std::io::Error),
    /// Something else lies under this name.
    #[error("{0} is in the archive already, with other bytes: sealed objects are never overwritten")]
    Differs(String),
}

/// Where sealed recordings lie.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
}

impl Objects {
    /// Opens `file:///PATH` or `s3://BUCKET[/PREFIX]`.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        if let Some(path) = url.strip_prefix("file://") {
            private_dir(Path::new(path)).with_context(|| format!("OFFLOADER_ARCHIVE: cannot make {path}"))?;
            // Synced: a recording is published only once its bytes would survive a power cut.
            let store = LocalFileSystem::new_with_prefix(path)?.with_fsync(true);
            return Ok(Self { store: Arc::new(store) });
        }
        let Some(bucket) = url.strip_prefix("s3://") else {
            anyhow::bail!("OFFLOADER_ARCHIVE must begin with file:/// or s3://, not {url:?}");
        };
        let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build().context("OFFLOADER_ARCHIVE: S3")?;
        let store = object_store::prefix::PrefixStore::new(store, prefix);
        Ok(Self { store: Arc::new(store) })
    }

    /// Stores small bytes under a name. The same bytes again are fine, other bytes are refused.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ObjectError> {
        let path = ObjectPath::from(name);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                if self.get(name).await? == bytes {
                    Ok(())
                } else {
                    Err(ObjectError::Differs(name.to_owned()))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores a file under a name that comes from its content: if it is there, it is the same.
    pub async fn put_file(&self, name: &str, file: &Path) -> Result<(), ObjectError> {
        let path = ObjectPath::from(name);
        let io = |error| ObjectError::File(file.display().to_string(), error);
        let mut source = tokio::fs::File::open(file).await.map_err(io)?;
        let length = source.metadata().await.map_err(io)?.len();
        if self.store.head(&path).await.is_ok_and(|meta| meta.size == length) {
            return Ok(());
        }
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(&path).await?, PART_BYTES);
        let mut part = vec![0; 1024 * 1024];
        loop {
            let read = source.read(&mut part).await.map_err(io)?;
            if read == 0 {
                break;
            }
            // Two parts under way: more would only wait in memory.
            upload.wait_for_capacity(2).await?;
            upload.write(&part[..read]);
        }
        upload.finish().await?;
        Ok(())
    }

    /// Name of this archive: made by whoever opens it first.
    pub async fn site_id(&self) -> Result<String, ObjectError> {
        let made = Bytes::from(uuid::Uuid::new_v4().simple().to_string());
        match self.put(names::SITE, made).await {
            Ok(()) | Err(ObjectError::Differs(_)) => Ok(String::from_utf8_lossy(&self.get(names::SITE).await?).into_owned()),
            Err(error) => Err(error),
        }
    }

    /// All bytes of an object.
    pub async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        Ok(self.store.get(&ObjectPath::from(name)).await?.bytes().await?)
    }

    /// All bytes of an object, if there is one of this name.
    pub async fn find(&self, name: &str) -> Result<Option<Bytes>, ObjectError> {
        match self.get(name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ObjectError::Store(object_store::Error::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Some bytes of an object.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        Ok(self.store.get_range(&ObjectPath::from(name), range).await?)
    }

    /// SHA-256 and length of an object, without holding it in memory.
    pub async fn hash(&self, name: &str) -> Result<(Hash, u64), ObjectError> {
        let mut stream = self.store.get(&ObjectPath::from(name)).await?.into_stream();
        let (mut context, mut length) = (digest::Context::new(&digest::SHA256), 0);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            context.update(&bytes);
            length += bytes.len() as u64;
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Ok((hash, length))
    }

    /// Deletes everything of a recording. What is not there is deleted already.
    pub async fn remove_recording(&self, recording: &str) -> Result<(), ObjectError> {
        for name in self.list(&names::recording(recording)).await? {
            match self.store.delete(&ObjectPath::from(name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Names under a folder.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, ObjectError> {
        let mut names = Vec::new();
        let mut stream = self.store.list(Some(&ObjectPath::from(folder)));
        while let Some(meta) = stream.next().await {
            names.push(meta?.location.to_string());
        }
        names.sort();
        Ok(names)
    }
}

/// Where the parts of a recording lie in the object store.
pub mod names {
    /// All of a recording.
    pub fn recording(recording: &str) -> String {
        format!("recordings/{recording}")
    }

    /// The manifest.
    pub fn manifest(recording: &str) -> String {
        format!("recordings/{recording}/{}", archive::MANIFEST_FILE)
    }

    /// The seal.
    pub fn seal(recording: &str) -> String {
        format!("recordings/{recording}/{}", archive::SEAL_FILE)
    }

    /// A segment.
    pub fn segment(recording: &str, file: &str) -> String {
        format!("recordings/{recording}/{}/{file}", archive::SEGMENTS_DIR)
    }

    /// A derived file, named by the hash of its stored bytes.
    pub fn derived(recording: &str, sha256: &str) -> String {
        format!("recordings/{recording}/derived/{sha256}")
    }

    /// The archive's own name.
    pub const SITE: &str = "site-id";

    /// Folder of the signed heads of the audit log.
    pub const AUDIT_HEADS: &str = "audit/heads";
}
