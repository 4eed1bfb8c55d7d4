//! The bot's way into a call, and the word that it has begun.

use std::time::{Duration, Instant};

use offloader_jobs::mattermost::MattermostCall;
use offloader_jobs::order::BotOrder;
use rtc_client::ClientError;
use rtc_client::mattermost::{self as mm, Address, Bot, BotDial, Ids, JobStatus, JobType, Site, SiteError};
use tokio::sync::mpsc;

use super::BEGIN_WITHIN;
use crate::job::now_us;
use crate::limits;

/// Without media after this a call cannot be recorded. The client gives up earlier, and says why.
const MEDIA_WITHIN: Duration = Duration::from_secs(45);
/// A status is told so often.
const STATUS_TRIES: u32 = 3;
const STATUS_PAUSE: Duration = Duration::from_secs(2);

/// For which of the plugin's jobs the bot comes, and with whose session.
pub(super) fn job_of(call: &MattermostCall) -> Option<(String, JobType, String)> {
    let recording = call.recording.as_ref().map(|job| (job.id.clone(), JobType::Recording, job.auth_token.clone()));
    recording.or_else(|| call.transcription.as_ref().map(|job| (job.id.clone(), JobType::Transcribing, job.auth_token.clone())))
}

/// In the call.
pub(super) struct Entered {
    pub(super) bot: Bot,
    pub(super) events: mpsc::Receiver<mm::Event>,
    /// What happened until there was media.
    pub(super) early: Vec<mm::Event>,
}

/// Why there is no way in; with the bot, where the plugin has let it in: it leaves when that is told.
pub(super) struct NoWayIn {
    pub(super) error: String,
    pub(super) bot: Option<Bot>,
}

impl From<String> for NoWayIn {
    fn from(error: String) -> Self {
        Self { error, bot: None }
    }
}

/// Into the call, with media: until that is so, what happens is kept.
pub(super) async fn enter(at: &Address, order: &BotOrder, job: &str) -> Result<Entered, NoWayIn> {
    let until = Instant::now() + BEGIN_WITHIN;
    let checkpoint = &order.checkpoint;
    let resume = (!checkpoint.started.is_empty())
        .then(|| Ids { original_conn_id: checkpoint.session_id.clone(), conn_id: checkpoint.connection_id.clone() });
    loop {
        let dial = BotDial {
            address: at.clone(),
            channel_id: order.call.channel_id.clone(),
            job_id: Some(job.to_owned()),
            resume: resume.clone(),
            local: mm::local_for(&at.site_url).to_owned(),
            livekit_url: order.call.livekit_url.clone(),
            // Where only words are wanted nobody needs the pictures.
            pictures: order.call.recording.is_some(),
            av1: true,
            dc_signaling: true,
        };
        let error = match Bot::join(dial).await {
            Ok((bot, mut events)) => match connected(&mut events).await {
                Ok(early) => return Ok(Entered { bot, events, early }),
                Err(error) => return Err(NoWayIn { error, bot: Some(bot) }),
            },
            // The plugin's own word: it does not change its mind.
            Err(error @ ClientError::Refused(_)) => return Err(error.to_string().into()),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until || resume.is_some() && until.saturating_duration_since(Instant::now()) < BEGIN_WITHIN / 2 {
            return Err(error.into());
        }
        tracing::warn!("{error}; trying again");
        tokio::time::sleep(limits::SITE_BACKOFF.0).await;
    }
}

async fn connected(events: &mut mpsc::Receiver<mm::Event>) -> Result<Vec<mm::Event>, String> {
    let mut early = Vec::new();
    let until = tokio::time::Instant::now() + MEDIA_WITHIN;
    loop {
        match tokio::time::timeout_at(until, events.recv()).await {
            Err(_) => {
                return Err(format!(
                    "no media within {} s: can this machine reach the media server's ports (rtcd's 8443, LiveKit's 7880 and 7882, UDP and TCP), and does it advertise an address of its own?",
                    MEDIA_WITHIN.as_secs()
                ));
            }
            Ok(None) => return Err("the call ended while the bot came".to_owned()),
            Ok(Some(mm::Event::Lost { reason })) => return Err(reason),
            Ok(Some(mm::Event::Media(mm::MediaState::Connected))) => return Ok(early),
            Ok(Some(mm::Event::Media(mm::MediaState::Failed))) => return Err("the media connection failed".to_owned()),
            Ok(Some(event)) => early.push(event),
        }
    }
}

/// Tells that a job has started. When the plugin took that, Unix µs by our clock.
pub(super) async fn tell_started(site: &Site, channel: &str, job_type: JobType, job: &str) -> Result<i64, SiteError> {
    let mut tries = 0;
    let mut told_us = None;
    loop {
        tries += 1;
        let asked_us = now_us();
        match site.status(channel, job, job_type, &JobStatus::Started).await {
            Ok(()) => return Ok(now_us()),
            // Told before, by us, and the answer was lost.
            Err(SiteError::Refused { status: 400, message }) if message.contains("already started") => {
                return Ok(told_us.unwrap_or(asked_us));
            }
            Err(error) if error.status().is_some_and(|status| status < 500) || tries == STATUS_TRIES => return Err(error),
            Err(error) => {
                if error.is_ambiguous() {
                    told_us = Some(asked_us);
                }
                tracing::warn!("{error}; trying again");
                tokio::time::sleep(STATUS_PAUSE).await;
            }
        }
    }
}
