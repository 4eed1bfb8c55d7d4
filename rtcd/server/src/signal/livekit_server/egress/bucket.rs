//! S3 buckets of requests.

use livekit_protocol as lk;
use offloader_jobs::egress::S3Bucket;

use super::order::refuse;
use crate::signal::seam::RoomFault;

/// Tags of an object (S3's own bounds: ten, of 128 and 256 characters), three bytes each where they are encoded.
const TAGS_MAX: usize = 10;
const TAGGING_LEN_MAX: usize = TAGS_MAX * (128 + 256) * 3;

/// Why none of the other clouds.
pub(super) const OTHER_STORES: &str = "files go to the offloader's folder or to S3; leave gcp, azure and ali_oss out";

/// A bucket of a request. Whether files may go there is for the offloader to say.
pub(super) fn bucket(s3: &lk::S3Upload) -> Result<S3Bucket, RoomFault> {
    refuse(&[
        (
            !s3.assume_role_arn.is_empty() || !s3.assume_role_external_id.is_empty(),
            "roles are not assumed; give keys that may write to the bucket",
        ),
        (s3.proxy.is_some(), "proxies are not used; leave proxy out"),
    ])?;
    let bad = |text: &str| Err(RoomFault::Invalid(text.to_owned()));
    if s3.access_key.is_empty() || s3.secret.is_empty() {
        return bad("s3 needs access_key and secret: this server has no keys of its own for buckets");
    }
    // What becomes part of a host's name or of a path is plain.
    let plain = |text: &str| {
        !text.is_empty() && text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let region = if s3.region.is_empty() { "us-east-1" } else { &s3.region };
    if !plain(&s3.bucket) || s3.bucket.contains("..") || !plain(region) {
        return bad("bucket and region have letters, digits, dots, dashes and underscores, 63 at most");
    }
    let endpoint = match s3.endpoint.trim_end_matches('/') {
        "" => format!("https://s3.{region}.amazonaws.com"),
        endpoint if endpoint.contains("://") => endpoint.to_ascii_lowercase(),
        endpoint => format!("https://{}", endpoint.to_ascii_lowercase()),
    };
    let header = |text: &String| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if s3.metadata.iter().any(|(name, value)| !plain(name) || !header(value)) || !header(&s3.content_disposition) {
        return bad("metadata and content_disposition become headers: names of letters and digits, values in ASCII");
    }
    if s3.tagging.len() > TAGGING_LEN_MAX || !header(&s3.tagging) || s3.tagging.split('&').count() > TAGS_MAX {
        return bad("tagging is name=value&…, URL-encoded, ten tags at most");
    }
    Ok(S3Bucket {
        endpoint,
        region: region.to_owned(),
        bucket: s3.bucket.clone(),
        path_style: s3.force_path_style,
        access_key: s3.access_key.clone(),
        secret: s3.secret.clone(),
        session_token: s3.session_token.clone(),
        metadata: s3.metadata.clone().into_iter().collect(),
        content_disposition: s3.content_disposition.clone(),
        tagging: s3.tagging.clone(),
    })
}
