//! The HTTP routes that the Calls plugin has for its bot: names, uploads, what was recorded and said, how a job stands.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Address;
use super::limits::{ANSWER_MAX, IMAGE_MAX};

/// The plugin's name in routes and events.
pub(super) const PLUGIN: &str = "com.mattermost.calls";
/// To a site that does not answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A request with a small body. The original's.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A chunk of a file: the whole has at least this …
const CHUNK_WITHIN: Duration = Duration::from_secs(60);
/// … and a second more for as many bytes.
const CHUNK_BYTES_PER_SECOND: u64 = 128 << 10;

/// Why a request to the site did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// What was configured cannot work.
    #[error("{0}")]
    Configuration(String),
    /// No connection: nothing was asked.
    #[error("the Mattermost site cannot be reached: {0}")]
    Unreachable(String),
    /// It was asked, and no answer came. It may have been done: ask before doing what must not be done twice.
    #[error("the Mattermost site did not answer in time: {0}")]
    NoAnswer(String),
    /// It said no.
    #[error("the Mattermost site refused with {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// It answered something else than its contract says.
    #[error("the Mattermost site answered what its Calls plugin never says: {0}")]
    Malformed(String),
}

impl SiteError {
    /// The HTTP status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Configuration(_) | Self::Unreachable(_) | Self::NoAnswer(_) | Self::Malformed(_) => None,
        }
    }

    /// What was asked may have been done.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        match self {
            // A gateway's word says nothing of the server behind it.
            Self::Refused { status, .. } => *status >= 500,
            Self::NoAnswer(_) | Self::Malformed(_) => true,
            Self::Configuration(_) | Self::Unreachable(_) => false,
        }
    }
}

impl From<reqwest::Error> for SiteError {
    fn from(error: reqwest::Error) -> Self {
        // The chain of causes, without the address: it is in the job's own settings.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        if error.is_builder() {
            Self::Configuration(text)
        } else if error.is_connect() {
            Self::Unreachable(text)
        } else {
            Self::NoAnswer(text)
        }
    }
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobType {
    /// Sound and pictures as a file.
    Recording,
    /// Words.
    Transcribing,
    /// Words while they are said. Only told of, never asked for.
    Captioning,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// It works.
    Started,
    /// It could not start, and why.
    Failed(String),
}

/// A member of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Their id.
    pub user_id: String,
    /// The name they sign in with.
    pub username: String,
    /// First and last name, as far as they are known.
    pub full_name: String,
}

impl Profile {
    /// The full name, or else the user name.
    #[must_use]
    pub fn display_name(&self) -> &str {
        if self.full_name.is_empty() { &self.username } else { &self.full_name }
    }
}

/// A channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Its name in addresses.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// `O`, `P`, `D` or `G`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A file that is being sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// How much of it the site has.
    #[serde(default)]
    pub file_offset: u64,
    /// How much there is.
    #[serde(default)]
    pub file_size: u64,
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Taken, at least in part: ask [`Site::upload`] where to go on.
    Incomplete,
    /// The file is whole and has this id.
    Complete(String),
}

/// Words of a call in one language.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Transcription {
    /// For people.
    pub title: String,
    /// Two letters.
    pub language: String,
    /// The WebVTT file, then the text file.
    #[serde(rename = "FileIDs")]
    pub file_ids: Vec<String>,
}

/// A site's plugin, spoken to as its bot. The environment's proxies are not used, as the WebSocket does not use them.
#[derive(Clone)]
pub struct Site {
    address: Address,
    http: reqwest::Client,
}

impl Site {
    /// Contacts nobody yet.
    ///
    /// # Errors
    /// When address, token or CA file cannot work.
    pub fn new(address: &Address) -> Result<Self, SiteError> {
        address.url(&[])?;
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(AUTHORIZATION, address.authorization()?);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&*address.tls()?))
            .default_headers(headers)
            .connect_timeout(CONNECT_WITHIN)
            // The token must not follow to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { address: address.clone(), http })
    }

    /// What a file of this call is called, without ending: the time in it is that of the request.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn filename(&self, channel: &str) -> Result<String, SiteError> {
        #[derive(Deserialize)]
        struct Answer {
            filename: String,
        }
        let answer: Answer = json(self.request(Method::GET, &["calls", channel, "filename"])?).await?;
        Ok(answer.filename)
    }

    /// Whose session this is. 400 when the call is over, 404 when the session is.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn profile(&self, channel: &str, session: &str) -> Result<Profile, SiteError> {
        #[derive(Deserialize)]
        struct User {
            id: String,
            #[serde(default)]
            username: String,
            #[serde(default)]
            first_name: String,
            #[serde(default)]
            last_name: String,
        }
        let user: User = json(self.request(Method::GET, &["calls", channel, "sessions", session, "profile"])?).await?;
        let full_name = format!("{} {}", user.first_name, user.last_name).trim().to_owned();
        Ok(Profile { user_id: user.id, username: user.username, full_name })
    }

    /// A channel.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn channel(&self, channel: &str) -> Result<Channel, SiteError> {
        json(self.request(Method::GET, &["channels", channel])?).await
    }

    /// Somebody's portrait, in any format that browsers show.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn image(&self, user: &str) -> Result<Bytes, SiteError> {
        let response = self.request(Method::GET, &["users", user, "image"])?.send().await?;
        body(accepted(response).await?, IMAGE_MAX).await
    }

    /// Tells how a job stands. Needs a call that goes on: 400 with a reason otherwise.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn status(&self, channel: &str, job: &str, job_type: JobType, status: &JobStatus) -> Result<(), SiteError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Body<'a> {
            job_type: JobType,
            status: &'static str,
            // The plugin's name for it is this word, by mistake; the right one costs nothing.
            #[serde(rename = "omitempty", skip_serializing_if = "str::is_empty")]
            omitempty: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            error: &'a str,
        }
        let (status, error) = match status {
            JobStatus::Started => ("started", ""),
            JobStatus::Failed(reason) => ("failed", reason.as_str()),
        };
        let body = Body { job_type, status, omitempty: error, error };
        self.post(&["calls", channel, "jobs", job, "status"], &body).await
    }

    /// Announces a file.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn create_upload(&self, channel: &str, filename: &str, size: u64) -> Result<Upload, SiteError> {
        let body = serde_json::json!({ "channel_id": channel, "filename": filename, "file_size": size });
        json(self.request(Method::POST, &["uploads"])?.json(&body)).await
    }

    /// How far a file has come.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn upload(&self, upload: &str) -> Result<Upload, SiteError> {
        json(self.request(Method::GET, &["uploads", upload])?).await
    }

    /// Sends `len` bytes of a file, from where [`Upload::file_offset`] says. The first chunk of several has at least 5 MiB.
    ///
    /// # Errors
    /// [`SiteError`]; then ask [`Site::upload`] where to go on.
    pub async fn send(&self, upload: &str, chunk: impl Into<reqwest::Body>, len: u64) -> Result<Sent, SiteError> {
        #[derive(Deserialize)]
        struct File {
            id: String,
        }
        let within = CHUNK_WITHIN + Duration::from_secs(len / CHUNK_BYTES_PER_SECOND);
        let request = self
            .request(Method::POST, &["uploads", upload])?
            .timeout(within)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, len)
            .body(chunk);
        let response = accepted(request.send().await?).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Sent::Incomplete);
        }
        let file: File = parsed(response).await?;
        Ok(Sent::Complete(file.id))
    }

    /// Posts a recording. **Each call that is accepted makes a post of its own**: see [`SiteError::is_ambiguous`] before trying again.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn publish_recording(&self, channel: &str, job: &str, post: &str, file_ids: &[String]) -> Result<(), SiteError> {
        let body = serde_json::json!({ "JobID": job, "PostID": post, "FileIDs": file_ids });
        self.post(&["calls", channel, "recordings"], &body).await
    }

    /// Posts what was said, after the recording. As with it, each accepted call makes a post.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn publish_transcriptions(
        &self,
        channel: &str,
        job: &str,
        post: &str,
        transcriptions: &[Transcription],
    ) -> Result<(), SiteError> {
        let body = serde_json::json!({ "JobID": job, "PostID": post, "Transcriptions": transcriptions });
        self.post(&["calls", channel, "transcriptions"], &body).await
    }

    /// The post that a file of ours hangs on, by the server's own word; `None`: on none yet. How a publication whose answer was lost
    /// is told from one that was not made. Of a transcript's files only the text hangs on its post.
    ///
    /// # Errors
    /// [`SiteError`].
    pub async fn post_of_file(&self, file_id: &str) -> Result<Option<String>, SiteError> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(default)]
            post_id: String,
        }
        let url = self.address.url(&["api", "v4", "files", file_id, "info"])?;
        let info: Info = json(self.http.get(url).timeout(ANSWER_WITHIN)).await?;
        Ok((!info.post_id.is_empty()).then_some(info.post_id))
    }

    fn request(&self, method: Method, segments: &[&str]) -> Result<RequestBuilder, SiteError> {
        self.plugin(method, &[&["bot"], segments].concat(), &[])
    }

    /// A route of the plugin that is not for bots alone.
    pub(super) fn plugin(&self, method: Method, segments: &[&str], query: &[(&str, &str)]) -> Result<RequestBuilder, SiteError> {
        let mut url = self.address.url(&[&["plugins", PLUGIN], segments].concat())?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.http.request(method, url).timeout(ANSWER_WITHIN))
    }

    async fn post(&self, segments: &[&str], body: &impl Serialize) -> Result<(), SiteError> {
        let response = self.request(Method::POST, segments)?.json(body).send().await?;
        accepted(response).await.map(|_| ())
    }
}

pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, SiteError> {
    parsed(accepted(request.send().await?).await?).await
}

async fn parsed<T: DeserializeOwned>(response: Response) -> Result<T, SiteError> {
    let body = body(response, ANSWER_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| SiteError::Malformed(error.to_string()))
}

/// A success, or the site's words of why not.
async fn accepted(response: Response) -> Result<Response, SiteError> {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    // The status is worth telling even when the words got lost.
    let words = body(response, ANSWER_MAX).await.unwrap_or_default();
    let message = match serde_json::from_slice::<Refusal>(&words) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(&words).trim().chars().take(200).collect(),
    };
    Err(SiteError::Refused { status: status.as_u16(), message })
}

async fn body(mut response: Response, max: usize) -> Result<Bytes, SiteError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max {
            return Err(SiteError::Malformed(format!("an answer of more than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests;
