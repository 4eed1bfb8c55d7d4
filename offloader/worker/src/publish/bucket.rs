//! The rendered file goes to an S3 bucket: in one go, or in parts where it is large. Cut off, it is sent again as a whole.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, RetryConfig, TagSet,
};
use offloader_jobs::egress::{Delivered, EgressResult, S3Bucket};
use offloader_jobs::order::UploadOrder;

use super::job::interrupted;
use super::upload::{self, UploadError};
use crate::job::{JobAddress, Lease, Outcome, Word};
use crate::limits;

/// Why the object is not there.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The offloader does not give the file.
    #[error(transparent)]
    Offloader(#[from] UploadError),
    /// The bucket.
    #[error("{0}")]
    Store(#[from] object_store::Error),
}

impl Trouble {
    /// Asking again gives the same answer.
    fn is_final(&self) -> bool {
        use object_store::Error;
        match self {
            Self::Offloader(_) => false,
            Self::Store(error) => matches!(
                error,
                Error::NotFound { .. }
                    | Error::PermissionDenied { .. }
                    | Error::Unauthenticated { .. }
                    | Error::InvalidPath { .. }
                    | Error::NotSupported { .. }
            ),
        }
    }
}

/// Does the job.
pub async fn run(address: &JobAddress, order: UploadOrder, lease: &Lease) -> Outcome {
    let failed = |error: String| {
        let place = order.bucket.host();
        Outcome::Failed { error: format!("the file cannot be brought to {place}: {error}; the recording is in the archive"), retry: false }
    };
    let store = match open(&order.bucket) {
        Ok(store) => store,
        Err(error) => return failed(error.to_string()),
    };
    let key = match Path::parse(&order.key) {
        Ok(key) => key,
        Err(error) => return failed(error.to_string()),
    };
    let mut word = lease.watch();
    let began = Instant::now();
    let mut backoff = limits::SITE_BACKOFF.0;
    loop {
        let sent = tokio::select! {
            biased;
            _ = word.wait_for(|word| *word != Word::Work) => return interrupted(lease),
            sent = deliver(address, &order, &store, &key, lease) => sent,
        };
        match sent {
            Ok(delivered) => {
                let result = EgressResult { delivered: Some(delivered), ..EgressResult::default() };
                return Outcome::Done(serde_json::to_string(&result).unwrap_or_default());
            }
            Err(error) if error.is_final() || began.elapsed() > limits::BUCKET_PATIENCE => return failed(error.to_string()),
            Err(error) => tracing::warn!(job = %address.id, "{error}; trying again in {} s", backoff.as_secs()),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = word.wait_for(|word| *word != Word::Work) => return interrupted(lease),
        }
        backoff = (backoff * 2).min(limits::SITE_BACKOFF.1);
    }
}

fn open(bucket: &S3Bucket) -> Result<AmazonS3, object_store::Error> {
    // Built of the order alone: nothing of this machine's environment, and no service that hands out keys, is asked.
    let mut builder = AmazonS3Builder::new()
        .with_endpoint(if bucket.path_style { bucket.endpoint.clone() } else { bucket.host() })
        .with_virtual_hosted_style_request(!bucket.path_style)
        .with_region(&bucket.region)
        .with_bucket_name(&bucket.bucket)
        .with_access_key_id(&bucket.access_key)
        .with_secret_access_key(&bucket.secret)
        .with_allow_http(true)
        .with_http_connector(OneHost)
        .with_retry(RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(5), base: 2.0 },
            max_retries: 4,
            retry_timeout: Duration::from_secs(60),
        });
    if !bucket.session_token.is_empty() {
        builder = builder.with_token(&bucket.session_token);
    }
    builder.build()
}

/// Speaks to the host that was asked for and follows it nowhere else.
#[derive(Debug)]
struct OneHost;

impl HttpConnector for OneHost {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(limits::CALL_TIMEOUT)
            .read_timeout(limits::BUCKET_SILENCE)
            .build()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(HttpClient::new(client))
    }
}

fn attributes(bucket: &S3Bucket, mime: String) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, mime.into());
    if !bucket.content_disposition.is_empty() {
        attributes.insert(Attribute::ContentDisposition, bucket.content_disposition.clone().into());
    }
    for (name, value) in &bucket.metadata {
        attributes.insert(Attribute::Metadata(name.clone().into()), value.clone().into());
    }
    attributes
}

fn tags(bucket: &S3Bucket) -> TagSet {
    let mut tags = TagSet::default();
    if let Ok(tagging) = reqwest::Url::parse(&format!("s3:?{}", bucket.tagging)) {
        tagging.query_pairs().for_each(|(name, value)| tags.push(&name, &value));
    }
    tags
}

/// The file, and then what is to lie beside it.
async fn deliver(address: &JobAddress, order: &UploadOrder, store: &AmazonS3, key: &Path, lease: &Lease) -> Result<Delivered, Trouble> {
    let bytes = send(address, &order.bucket, store, key, lease).await?;
    let place = |key: &str| format!("{}/{key}", order.bucket.host());
    let mut delivered = Delivered { location: place(key.as_ref()), bytes, ..Delivered::default() };
    if let Some((key, manifest)) = &order.manifest {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let text = manifest.clone().written(&order.key, &delivered.location, now_ms);
        let attributes = attributes(&order.bucket, "application/json".to_owned());
        let options = PutOptions { attributes, tags: tags(&order.bucket), ..PutOptions::default() };
        let at = Path::parse(key).map_err(object_store::Error::from)?;
        store.put_opts(&at, PutPayload::from(text), options).await?;
        delivered.manifest = place(key);
    }
    Ok(delivered)
}

/// Sends the file; gives its length.
async fn send(address: &JobAddress, bucket: &S3Bucket, store: &AmazonS3, key: &Path, lease: &Lease) -> Result<u64, Trouble> {
    let media = upload::media(address).await?;
    let (attributes, tags) = (attributes(bucket, media.mime), tags(bucket));
    if media.size <= limits::BUCKET_PART {
        let bytes = part(address, 0, media.size).await?;
        store.put_opts(key, PutPayload::from_bytes(bytes), PutOptions { attributes, tags, ..PutOptions::default() }).await?;
        return Ok(media.size);
    }
    let mut sending = store.put_multipart_opts(key, PutMultipartOptions { attributes, tags, ..PutMultipartOptions::default() }).await?;
    let mut sent = Ok(());
    let mut offset = 0;
    while sent.is_ok() && offset < media.size {
        let length = limits::BUCKET_PART.min(media.size - offset);
        sent = match part(address, offset, length).await {
            Ok(bytes) => sending.put_part(PutPayload::from_bytes(bytes)).await.map_err(Trouble::from),
            Err(error) => Err(error),
        };
        offset += length;
        lease.set_progress(offset as f32 / media.size as f32);
    }
    if let Err(error) = sent {
        // Else its parts would lie there, and cost, for ever.
        let _ = sending.abort().await;
        return Err(error);
    }
    sending.complete().await?;
    Ok(media.size)
}

async fn part(address: &JobAddress, offset: u64, length: u64) -> Result<Bytes, Trouble> {
    let response = upload::read(address, "media", Some((offset, length))).await?;
    let bytes = response.bytes().await.map_err(|error| UploadError::Offloader(error.to_string()))?;
    if bytes.len() as u64 != length {
        return Err(UploadError::Offloader(format!("{} of {length} bytes came", bytes.len())).into());
    }
    Ok(bytes)
}
