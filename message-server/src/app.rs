//! What all handlers share.

use std::{path::Path, sync::Arc};

use tokio::sync::mpsc;

use crate::{
    calls::{captions::CaptionDelays, reconcile::Reconciler},
    events::{announcer::Announcer, hub::Hub},
    ids,
    jobs::Jobs,
    link::{Link, LinkEvent},
    metrics::Metrics,
    people::{passwords::Passwords, setup::write_private, sign_in_limits::SignInLimits},
    relay::{Relay, token::MediaTokens},
    settings::Settings,
    store::Store,
};

/// One per server.
#[derive(Debug)]
pub struct App {
    /// Settings, checked.
    pub settings: Settings,
    /// Database.
    pub store: Store,
    /// Event sockets.
    pub hub: Arc<Hub>,
    /// Tells pages about changed calls.
    pub announcer: Announcer,
    /// LiveKit sockets.
    pub relay: Arc<Relay>,
    /// Media node.
    pub link: Arc<Link>,
    /// Offloader's jobs; `None`: not configured.
    pub jobs: Option<Jobs>,
    /// Makes wishes true.
    pub reconciler: Reconciler,
    /// LiveKit tokens.
    pub media_tokens: MediaTokens,
    /// Password hashing.
    pub passwords: Passwords,
    /// Guessing limits.
    pub sign_in_limits: SignInLimits,
    /// Delay statistics.
    pub caption_delays: CaptionDelays,
    /// Decisions about calls and their effects leave in one order.
    pub call_steps: tokio::sync::Mutex<()>,
    /// Counters.
    pub metrics: Metrics,
    /// To the offloader's archive.
    pub http: reqwest::Client,
    /// The OpenAPI document.
    pub openapi: String,
}

impl App {
    /// Opens database and keys; nothing runs yet. The receiver gets what happens in calls.
    pub async fn open(settings: Settings) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<LinkEvent>)> {
        create_data(&settings.data)?;
        let store = Store::open(&settings.database_url()).await?;
        let node_id = if settings.node_id.is_empty() { kept_node_id(&settings.data)? } else { settings.node_id.clone() };
        let (link, events) = Link::new(&settings, &node_id)?;
        let app = Self {
            jobs: Jobs::from_settings(&settings)?,
            media_tokens: MediaTokens::load(&settings.data)?,
            // No time limit over all: a download takes as long as it takes.
            http: reqwest::Client::builder()
                .connect_timeout(std::time::Duration::from_secs(3))
                .read_timeout(std::time::Duration::from_secs(60))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()?,
            store,
            link,
            settings,
            hub: Arc::default(),
            announcer: Announcer::default(),
            relay: Arc::default(),
            reconciler: Reconciler::default(),
            passwords: Passwords::default(),
            sign_in_limits: SignInLimits::default(),
            caption_delays: CaptionDelays::default(),
            call_steps: tokio::sync::Mutex::default(),
            metrics: Metrics::default(),
            openapi: crate::web::router::openapi_text(),
        };
        Ok((Arc::new(app), events))
    }
}

fn create_data(data: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|error| anyhow::anyhow!("cannot create the data folder {}: {error}. Set MESSAGE_SERVER_DATA", data.display()))
}

/// The media node keeps a restarted server's participants by this name.
fn kept_node_id(data: &Path) -> anyhow::Result<String> {
    let path = data.join("node-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) | Err(_) => {
            let id = ids::id("ms");
            write_private(&path, id.as_bytes())?;
            Ok(id)
        }
    }
}
