//! What all parts of the daemon share.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context;
use archive::keys::DataKey;
use offloader_jobs::Job;
use tokio::sync::{Notify, broadcast, mpsc};

use crate::calls_offloader::{Calls, CallsCounters};
use crate::copies::Copied;
use crate::keys::Keys;
use crate::limits::WATCH_QUEUE;
use crate::objects::Objects;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::catalogue::RecordingRow;
use crate::store::nodes::Node;
use crate::tokens::Tokens;

/// Counters for `/metrics`.
#[derive(Default)]
pub struct Counts {
    /// Requests with a missing or wrong token.
    pub refused: AtomicU64,
    /// Writes with a stale fence.
    pub stale: AtomicU64,
    /// Worker processes started.
    pub spawned: AtomicU64,
    /// Worker processes that ended without finishing.
    pub died: AtomicU64,
    /// Leases that ran out.
    pub expired: AtomicU64,
    /// Recordings sealed.
    pub sealed: AtomicU64,
    /// Ends that could not be dealt with at the first try.
    pub settle_errors: AtomicU64,
    /// Accesses written to the audit log.
    pub accesses: AtomicU64,
    /// Wake-ups sent over Redis.
    pub wakes_sent: AtomicU64,
    /// Wake-ups of other offloaders heard over Redis.
    pub wakes_heard: AtomicU64,
    /// Connections to Redis that failed or broke.
    pub redis_errors: AtomicU64,
    /// Times that a recording had to wait for room on the disk.
    pub no_room: AtomicU64,
    /// Jobs that had to wait for memory.
    pub no_memory: AtomicU64,
}

/// The daemon.
pub struct App {
    /// As configured.
    pub settings: Settings,
    /// Rows.
    pub store: Store,
    /// Keys.
    pub keys: Arc<Keys>,
    /// Tokens.
    pub tokens: Tokens,
    /// Sealed bytes.
    pub objects: Objects,
    /// There may be something to lease or to settle.
    pub wake: Notify,
    /// Every change of a job.
    pub updates: broadcast::Sender<Job>,
    /// Derived work waits for memory.
    pub short_of_memory: AtomicBool,
    /// Nothing new is started.
    pub draining: AtomicBool,
    /// Counters.
    pub counts: Counts,
    /// Jobs whose end is being dealt with, or not before that time.
    pub(crate) settling: Mutex<HashMap<String, i64>>,
    /// Recordings that are being brought back from the object store.
    pub(crate) fetching: Mutex<HashSet<String>>,
    /// Pids of our workers, by job and fence.
    pub(crate) workers: Mutex<HashMap<(String, u64), u32>>,
    /// Who did what with which recording lately.
    pub(crate) lately: Mutex<HashMap<(String, &'static str, String), i64>>,
    /// Name of this daemon in leases: the same after a restart in the same folder.
    pub node: String,
    /// Name of the archive, by which offloaders of one site know each other.
    pub(crate) site_id: String,
    /// Ids of keys and archive, to be compared.
    pub(crate) site: String,
    /// The offloaders of this site as they were last seen, this one too.
    pub(crate) peers: Mutex<Vec<Node>>,
    /// When we last said that we live.
    pub(crate) beaten: Mutex<Option<std::time::Instant>>,
    /// How far captures are copied.
    pub(crate) copied: Mutex<HashMap<String, Copied>>,
    /// Ids of changed jobs, for the other offloaders.
    pub(crate) ring: OnceLock<mpsc::Sender<String>>,
    /// Redis answers.
    pub(crate) redis_up: AtomicBool,
    /// The calls-offloader contract, where it is served.
    pub(crate) calls: Option<Arc<Calls>>,
    /// What became of its jobs.
    pub(crate) calls_counts: CallsCounters,
    /// How far logs of workers were passed on to ours.
    pub(crate) passed_on: Mutex<HashMap<PathBuf, u64>>,
    /// Port that workers call; known once it listens.
    pub url: Mutex<String>,
}

impl App {
    /// Opens keys, database and object store.
    pub async fn open(mut settings: Settings) -> anyhow::Result<Self> {
        crate::keys::private_dir(&settings.data)?;
        if settings.token.is_empty() {
            settings.token = crate::keys::secret(&settings, "service.token")?;
        }
        if settings.tap_secret.is_empty() {
            settings.tap_secret = crate::keys::secret(&settings, "tap.secret")?;
        }
        let keys = Arc::new(Keys::load(&settings)?);
        let store = Store::open(&settings.database).await?;
        let objects = Objects::open(&settings.archive)?;
        let calls = match settings.calls.clone() {
            Some(config) => Some(Arc::new(Calls::new(config, store.clone(), &settings.data).await?)),
            None => None,
        };
        let site_id = objects.site_id().await.context("OFFLOADER_ARCHIVE does not answer")?;
        Ok(Self {
            tokens: Tokens::new(&settings.token, &settings.tap_secret),
            store,
            objects,
            wake: Notify::new(),
            updates: broadcast::channel(WATCH_QUEUE).0,
            short_of_memory: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            counts: Counts::default(),
            settling: Mutex::default(),
            fetching: Mutex::default(),
            workers: Mutex::default(),
            lately: Mutex::default(),
            node: crate::nodes::name(&settings.data)?,
            site: crate::nodes::site(&keys.site.id(), &keys.signer.public().id(), &site_id),
            site_id,
            peers: Mutex::default(),
            beaten: Mutex::default(),
            copied: Mutex::default(),
            ring: OnceLock::new(),
            redis_up: AtomicBool::new(false),
            calls,
            calls_counts: CallsCounters::default(),
            passed_on: Mutex::default(),
            url: Mutex::new(format!("http://{}", settings.listen)),
            keys,
            settings,
        })
    }

    /// A job changed: tell watchers, here and elsewhere.
    pub fn told(&self, job: &Job) {
        // Nobody watching is fine.
        let _ = self.updates.send(job.clone());
        if let Some(ring) = self.ring.get() {
            // Full while Redis is away: the others look by themselves.
            let _ = ring.try_send(job.id.clone());
        }
    }

    /// Folder of a recording on this machine.
    pub fn recording_dir(&self, recording_id: &str) -> PathBuf {
        self.settings.data.join("recordings").join(recording_id)
    }

    /// Folder of one attempt of a derived job.
    pub fn output_dir(&self, job_id: &str, fence: u64) -> PathBuf {
        self.settings.data.join("work").join(format!("{job_id}-{fence}"))
    }

    /// Opens a recording's data key.
    pub fn data_key(&self, recording: &RecordingRow) -> Result<DataKey, archive::keys::KeyError> {
        self.keys.site.unwrap(&recording.id, &recording.wrapped_key)
    }
}

/// A lock that a panic elsewhere does not take from us: what these protect is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random number, for jitter.
pub(crate) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without chance the wait is only less spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}
