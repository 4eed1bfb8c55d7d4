//! The publish job: one piece of a recording becomes one post.

use std::time::{Duration, Instant};

use bytes::Bytes;
use offloader_jobs::mattermost::{Piece, PublishCheckpoint, UploadCheckpoint};
use offloader_jobs::order::{PublishOrder, Transcript};
use rtc_client::mattermost::{Address, Site, SiteError, Transcription};

use super::upload::{self, Content, FIRST_CHUNK, UploadError};
use super::words;
use crate::job::{JobAddress, Lease, Outcome, Word, interruption};
use crate::limits;
use crate::speech::recogniser::language_name;

/// Does a publish job.
pub async fn run(address: &JobAddress, order: PublishOrder, lease: &Lease) -> Outcome {
    let call = &order.call;
    let (job_id, token) = match (order.piece, &call.recording, &call.transcription) {
        (Piece::Recording, Some(recording), _) => (recording.id.clone(), recording.auth_token.clone()),
        (Piece::Transcript, _, Some(transcription)) => (transcription.id.clone(), transcription.auth_token.clone()),
        (Piece::Recording | Piece::Transcript, _, _) => {
            return Outcome::Failed { error: "nobody asked for what is to be published".into(), retry: false };
        }
    };
    let site = match Site::new(&Address { site_url: call.site_url.clone(), token, ca_file: call.ca_file.clone() }) {
        Ok(site) => site,
        Err(error) => return Outcome::Failed { error: error.to_string(), retry: false },
    };
    let (files, language) = match contents(address, &order).await {
        Ok(Some(found)) => found,
        // As the original: where nothing was said there is nothing to post.
        Ok(None) => return Outcome::Done("{}".to_owned()),
        Err(error) => return Outcome::Failed { error, retry: true },
    };
    let mut publication =
        Publication { address, order: &order, site, job_id, files, language, state: order.checkpoint.clone(), chunk: FIRST_CHUNK };
    let mut word = lease.watch();
    // Since when nothing was taken. Not since the last step: a piece may be on its way for longer than this is waited.
    let mut away: Option<Instant> = None;
    let mut backoff = limits::SITE_BACKOFF.0;
    loop {
        // What the server has taken is known to it; a request that is cut off here is found again by the next attempt.
        let step = tokio::select! {
            biased;
            _ = word.wait_for(|word| *word != Word::Work) => return interrupted(lease),
            step = publication.advance() => step,
        };
        let (error, pause) = match step {
            Ok(Step::Posted) => return Outcome::Done("{}".to_owned()),
            Ok(Step::Moved) => {
                (away, backoff) = (None, limits::SITE_BACKOFF.0);
                lease.set_progress(publication.progress());
                continue;
            }
            Err(Trouble::Given(error)) => return Outcome::Failed { error, retry: true },
            Err(Trouble::Unknown(error)) => return Outcome::Failed { error, retry: false },
            Err(Trouble::Away(error)) => (error, backoff),
        };
        tracing::warn!(job = %address.id, "{error}; trying again in {} s", pause.as_secs());
        if away.get_or_insert_with(Instant::now).elapsed() > limits::SITE_PATIENCE {
            return Outcome::Blocked { error };
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = word.wait_for(|word| *word != Word::Work) => return interrupted(lease),
        }
        backoff = (backoff * 2).min(limits::SITE_BACKOFF.1);
    }
}

/// A publication that is stopped stays undone: the file is in the archive.
pub(super) fn interrupted(lease: &Lease) -> Outcome {
    interruption(lease.word()).unwrap_or(Outcome::Released)
}

type Files = Vec<(&'static str, Content)>;

/// The files with their endings, and the language of words; `None`: nothing was said.
async fn contents(address: &JobAddress, order: &PublishOrder) -> Result<Option<(Files, String)>, String> {
    if order.piece == Piece::Recording {
        let size = upload::media(address).await.map_err(|error| error.to_string())?.size;
        return Ok(Some((vec![("mp4", Content::Media { size })], String::new())));
    }
    let response = upload::read(address, "transcript.json", None).await.map_err(|error| error.to_string())?;
    if response.content_length().is_some_and(|length| length > limits::TRANSCRIPT_BYTES) {
        return Err(format!("the transcript is longer than {} bytes", limits::TRANSCRIPT_BYTES));
    }
    let bytes = response.bytes().await.map_err(|error| error.to_string())?;
    let transcript: Transcript = serde_json::from_slice(&bytes).map_err(|error| format!("the transcript cannot be read: {error}"))?;
    let wanted = order.call.transcription.clone().unwrap_or_default();
    if transcript.segments.is_empty() && transcript.missing.is_empty() {
        return Ok(None);
    }
    let vtt = Bytes::from(words::vtt(&transcript, wanted.omit_speaker));
    let text = Bytes::from(words::text(&transcript, &wanted));
    let language = if transcript.language.is_empty() { "en".to_owned() } else { transcript.language };
    Ok(Some((vec![("vtt", Content::Text(vtt)), ("txt", Content::Text(text))], language)))
}

enum Step {
    Moved,
    Posted,
}

/// Why it does not go on.
enum Trouble {
    /// The server is away, overloaded, or does not take our session: it is asked again.
    Away(String),
    /// It said no: another attempt begins where this one ended.
    Given(String),
    /// Whether the post is there cannot be known: another try could make a second one.
    Unknown(String),
}

/// What is said where no route is: by the server while the plugin is not active (Go's own words), or by a proxy. The plugin's own "not
/// found" is JSON with a message.
pub(super) fn is_nobodys(error: &SiteError) -> bool {
    let SiteError::Refused { status: 404, message } = error else { return false };
    message.is_empty() || message.starts_with("404 page not found") || message.starts_with('<')
}

impl From<SiteError> for Trouble {
    fn from(error: SiteError) -> Self {
        match error.status() {
            _ if is_nobodys(&error) => Self::Away(format!(
                "{error}: nobody answers for the Calls plugin. The file is safe in the archive; it is sent once the plugin is active again"
            )),
            Some(401 | 403) => Self::Away(format!(
                "{error}: the bot's session is not taken. The file is safe in the archive; it is sent when the session is taken again. \
                 Is the Calls plugin active, and the licence in place?"
            )),
            Some(408 | 425 | 429) | None => Self::Away(error.to_string()),
            Some(status) if status >= 500 => Self::Away(error.to_string()),
            Some(_) => Self::Given(error.to_string()),
        }
    }
}

impl From<UploadError> for Trouble {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Site(error) => error.into(),
            UploadError::Offloader(_) => Self::Away(error.to_string()),
        }
    }
}

struct Publication<'a> {
    address: &'a JobAddress,
    order: &'a PublishOrder,
    site: Site,
    job_id: String,
    files: Files,
    /// Of the words.
    language: String,
    state: PublishCheckpoint,
    chunk: u64,
}

impl Publication<'_> {
    fn progress(&self) -> f32 {
        let done = self.state.uploads.iter().filter(|upload| !upload.file_id.is_empty()).count();
        done as f32 / (self.files.len() + 1) as f32
    }

    /// One step: a name, an upload begun, a piece of a file, the post.
    async fn advance(&mut self) -> Result<Step, Trouble> {
        if self.state.posted {
            return Ok(Step::Posted);
        }
        if self.state.name.is_empty() {
            self.state.name = file_name(&self.site.filename(&self.order.call.channel_id).await?);
            self.save().await?;
            return Ok(Step::Moved);
        }
        self.state.uploads.resize(self.files.len(), UploadCheckpoint::default());
        for n in 0..self.files.len() {
            let (ending, content) = &self.files[n];
            let upload = &mut self.state.uploads[n];
            if !upload.file_id.is_empty() {
                continue;
            }
            if upload.id.is_empty() {
                let name = format!("{}.{ending}", self.state.name);
                upload.id = self.site.create_upload(&self.order.call.channel_id, &name, content.size()).await?.id;
                self.save().await?;
                return Ok(Step::Moved);
            }
            let whole = upload::advance(&self.site, self.address, content, upload, &mut self.chunk).await?;
            if whole || upload.id.is_empty() {
                self.save().await?;
            }
            return Ok(Step::Moved);
        }
        self.post().await
    }

    /// Asks for the post, once.
    async fn post(&mut self) -> Result<Step, Trouble> {
        // Asked for before, by us or by an attempt before us, and the answer is not known.
        if self.state.posting && self.is_posted().await? {
            self.state.posted = true;
            self.save().await?;
            return Ok(Step::Posted);
        }
        self.state.posting = true;
        self.save().await?;
        let (call, ids) = (&self.order.call, self.file_ids());
        let asked = match self.order.piece {
            Piece::Recording => self.site.publish_recording(&call.channel_id, &self.job_id, &call.post_id, &ids).await,
            Piece::Transcript => {
                let title = language_name(&self.language);
                let words = [Transcription { title, language: self.language.clone(), file_ids: ids }];
                self.site.publish_transcriptions(&call.channel_id, &self.job_id, &call.post_id, &words).await
            }
        };
        match asked {
            Ok(()) => {
                self.state.posted = true;
                self.save().await?;
                Ok(Step::Posted)
            }
            Err(error) => {
                if !error.is_ambiguous() {
                    // A plain no: nothing was posted, and the next try need not ask.
                    self.state.posting = false;
                    self.save().await?;
                }
                Err(error.into())
            }
        }
    }

    /// Whether the post that was asked for is there: then a file hangs on it. The last one is asked for: of a transcript's two
    /// only the text hangs on the post.
    async fn is_posted(&self) -> Result<bool, Trouble> {
        let Some(file) = self.file_ids().pop() else { return Ok(false) };
        let until = Instant::now() + limits::ANSWER_LOST;
        loop {
            match self.site.post_of_file(&file).await {
                Ok(Some(_)) => return Ok(true),
                // The request may still be on its way through a slow proxy.
                Ok(None) if Instant::now() < until => tokio::time::sleep(Duration::from_secs(2)).await,
                Ok(None) => return Ok(false),
                Err(error) if matches!(error.status(), Some(404 | 400 | 501)) && !is_nobodys(&error) => {
                    return Err(Trouble::Unknown(format!(
                        "the answer to the post was lost, and the server does not say whether it was made ({error}): look into the call's \
                         thread; the file is in the archive"
                    )));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn file_ids(&self) -> Vec<String> {
        self.state.uploads.iter().map(|upload| upload.file_id.clone()).collect()
    }

    async fn save(&self) -> Result<(), Trouble> {
        self.address.checkpoint(&self.state).await.map_err(|error| Trouble::Given(error.to_string()))
    }
}

/// A name that every file system takes.
fn file_name(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| if c.is_whitespace() || c.is_control() || "\\:*?\"<>|/".contains(c) { '_' } else { c })
        .take(NAME_CHARACTERS)
        .collect();
    if clean.is_empty() { "Call".to_owned() } else { clean }
}

/// Mattermost's names of files have at most 256 characters, ending included.
const NAME_CHARACTERS: usize = 200;

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn names_are_taken_by_every_file_system() {
        assert_eq!(file_name("Call_Town Square: a/b\\c_2026"), "Call_Town_Square__a_b_c_2026");
        assert_eq!(file_name(""), "Call");
        assert_eq!(file_name(&"x".repeat(999)).len(), 200);
    }
}
