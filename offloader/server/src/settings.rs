//! Settings: a TOML file, then the environment over it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use offloader_jobs::vocabulary::{Vocabulary, VocabularyError};
use serde::Deserialize;

use crate::calls_offloader::config::CallsConfig;
use crate::calls_offloader::{self, config};

/// Everything that can be set. Each field is a TOML key and an environment variable.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of gRPC and HTTP (`OFFLOADER_LISTEN`). Keep it local: the message server is its only guest.
    pub listen: SocketAddr,
    /// Bearer token of whoever may call it (`OFFLOADER_TOKEN`). At least 16 characters.
    pub token: String,
    /// Folder for recordings being captured, keys and, by default, all the rest (`OFFLOADER_DATA`).
    pub data: PathBuf,
    /// `sqlite://PATH` or `postgres://…` (`OFFLOADER_DATABASE`). Default: a SQLite file in `data`.
    pub database: String,
    /// `redis://…` or `unix:///PATH` of the Redis over which offloaders of one database wake each other (`OFFLOADER_REDIS`).
    /// Without it each looks for work by itself only.
    pub redis: Option<String>,
    /// How often it looks for work by itself, in ms (`OFFLOADER_POLL_MS`), 100 to 3 600 000. Everything that is late without
    /// Redis is late by this.
    pub poll_ms: u64,
    /// `file:///PATH` or `s3://BUCKET` with the usual `AWS_*` variables (`OFFLOADER_ARCHIVE`). Default: a folder in `data`.
    pub archive: String,
    /// File with the site key, 64 hexadecimal digits (`OFFLOADER_SITE_KEY_FILE`). Made at first start.
    pub site_key_file: PathBuf,
    /// File with the Ed25519 signing key, PKCS#8 (`OFFLOADER_SIGNING_KEY_FILE`). Made at first start.
    pub signing_key_file: PathBuf,
    /// Files with the public keys (PEM) of signing keys that the site had before (`OFFLOADER_OLDER_SIGNING_KEYS`, separated by
    /// commas). What was signed with any other key is taken for a forgery.
    pub older_signing_keys: Vec<PathBuf>,
    /// Folder for the files of LiveKit's egress (`OFFLOADER_EGRESS_DIR`). Without one there is no egress to files.
    pub egress_dir: Option<PathBuf>,
    /// Endpoints of S3 that files of LiveKit's egress may go to, where a request says so (`OFFLOADER_EGRESS_S3`, separated by commas):
    /// `https://HOST[:PORT]`. Nothing else is contacted.
    pub egress_s3: Vec<String>,
    /// Room that stays free on the data folder's disk, in MiB (`OFFLOADER_DISK_FREE_MIN_MB`). A recording pauses when there is
    /// less, and goes on when there is twice as much: what is left is for the database, the seals and the system. 0: until the
    /// disk is full.
    pub disk_free_min_mb: u64,
    /// Media node (`OFFLOADER_RTCD`).
    pub rtcd: String,
    /// Secret shared with the media node for tap tokens (`OFFLOADER_TAP_SECRET`).
    pub tap_secret: String,
    /// Worker program (`OFFLOADER_WORKER_BIN`). Default: `offload-worker` beside this program.
    pub worker_bin: PathBuf,
    /// Workers that keep a core busy at a time (`OFFLOADER_WORKERS_MAX`). 0: as many as there are cores.
    /// Recordings are not counted; jobs beyond it wait.
    pub workers_max: usize,
    /// Whisper model (`OFFLOADER_MODEL_PATH`). Without one, transcripts and captions fail with that word.
    pub model_path: Option<PathBuf>,
    /// Its SHA-256 (`OFFLOADER_MODEL_SHA256`).
    pub model_sha256: Option<String>,
    /// Voice activity model (`OFFLOADER_VAD_PATH`).
    pub vad_path: Option<PathBuf>,
    /// Its SHA-256 (`OFFLOADER_VAD_SHA256`).
    pub vad_sha256: Option<String>,
    /// Model for live captions (`OFFLOADER_CAPTION_MODEL_PATH`). Default: the same.
    pub caption_model_path: Option<PathBuf>,
    /// Its SHA-256 (`OFFLOADER_CAPTION_MODEL_SHA256`).
    pub caption_model_sha256: Option<String>,
    /// Folder of Whisper models by size (`OFFLOADER_MODELS_DIR`), for jobs that name one, as Mattermost's do. Default: such a job gets
    /// the models above too.
    pub models_dir: Option<PathBuf>,
    /// Words and names that people of the site say and a recogniser does not know, with commas between them (`OFFLOADER_VOCABULARY`).
    pub vocabulary: Vocabulary,
    /// Serves Mattermost's calls-offloader contract (`OFFLOADER_MATTERMOST_ENABLE`). Unset: where its settings are there.
    pub mattermost_enable: Option<bool>,
    /// Its jobs that may wait for their turn (`OFFLOADER_MATTERMOST_QUEUE`). 0: refused at once, as there.
    pub mattermost_queue: usize,
    /// How long one may wait, in s (`OFFLOADER_MATTERMOST_QUEUE_S`): the plugin gives up after 60.
    pub mattermost_queue_s: u64,
    /// Keeps our sealed copy of what was brought to Mattermost (`OFFLOADER_MATTERMOST_KEEP`).
    pub mattermost_keep: bool,
    /// The settings of calls-offloader, where its contract is served.
    #[serde(skip)]
    pub calls: Option<CallsConfig>,
    /// The data folder follows from those and may be gone after a restart of the machine.
    #[serde(skip)]
    pub data_may_go: bool,
}

/// Every variable of the environment: name, default, what it is. `--help` and docs/install.md show this table.
pub const VARIABLES: [(&str, &str, &str); 31] = [
    ("OFFLOADER_LISTEN", "127.0.0.1:4545", "address of gRPC and HTTP; keep it on the inner network"),
    ("OFFLOADER_TOKEN", "needed", "bearer token of whoever may call it, at least 16 characters"),
    ("OFFLOADER_DATA", "var/offloader", "folder of this offloader alone: captures, work, keys"),
    ("OFFLOADER_DATABASE", "SQLite in the data folder", "`sqlite://PATH` or `postgres://…`; several offloaders may share the latter"),
    ("OFFLOADER_REDIS", "none", "`redis://[:PASSWORD@]HOST[:PORT]`: offloaders of one database wake each other over it"),
    ("OFFLOADER_POLL_MS", "1000", "how often it looks for work by itself; without Redis work is late by this"),
    (
        "OFFLOADER_ARCHIVE",
        "a folder in the data folder",
        "`file:///PATH` or `s3://BUCKET` with the usual `AWS_*` variables; the same for all",
    ),
    ("OFFLOADER_EGRESS_DIR", "none", "folder for the files of LiveKit's egress; without one there is no egress to files"),
    (
        "OFFLOADER_EGRESS_S3",
        "none",
        "endpoints of S3 that requests for egress may name, separated by commas: `https://HOST[:PORT]`; Amazon's are `https://s3.REGION.amazonaws.com`",
    ),
    (
        "OFFLOADER_DISK_FREE_MIN_MB",
        "256",
        "MiB that stay free on the data folder's disk; a recording pauses below and goes on at twice that",
    ),
    ("OFFLOADER_SITE_KEY_FILE", "keys/site.key in the data folder", "64 hexadecimal digits, made at the first start; the same for all"),
    ("OFFLOADER_SIGNING_KEY_FILE", "keys/signing.pk8 in the data folder", "Ed25519 in PKCS#8, made at the first start; the same for all"),
    (
        "OFFLOADER_OLDER_SIGNING_KEYS",
        "none",
        "after a change of the signing key: files with the public keys (PEM) it had before, separated by commas; what no known key signed is taken for a forgery",
    ),
    ("OFFLOADER_RTCD", "http://127.0.0.1:8045", "media node"),
    ("OFFLOADER_TAP_SECRET", "needed", "the media node's RTCD_TAP_SECRET"),
    ("OFFLOADER_WORKER_BIN", "offload-worker beside the program", "worker program"),
    ("OFFLOADER_WORKERS_MAX", "0: the number of cores", "workers that keep a core busy at a time; recordings are not counted"),
    ("OFFLOADER_MODEL_PATH", "none", "Whisper model; without one transcripts and captions fail with that word"),
    ("OFFLOADER_MODEL_SHA256", "none", "its SHA-256"),
    ("OFFLOADER_VAD_PATH", "none", "voice activity model"),
    ("OFFLOADER_VAD_SHA256", "none", "its SHA-256"),
    ("OFFLOADER_CAPTION_MODEL_PATH", "OFFLOADER_MODEL_PATH", "model for live captions"),
    ("OFFLOADER_CAPTION_MODEL_SHA256", "OFFLOADER_MODEL_SHA256", "its SHA-256"),
    (
        "OFFLOADER_MODELS_DIR",
        "none: every job gets the models above",
        "folder of Whisper models by whisper.cpp's names (`ggml-base.bin`), for jobs of Mattermost's that ask for a size; a size that is not there gets the models above",
    ),
    (
        "OFFLOADER_VOCABULARY",
        "none",
        "words and names that speech here is likely to hold, the likeliest first, with commas between them; at most 2048 bytes",
    ),
    (
        "OFFLOADER_MATTERMOST_ENABLE",
        "where settings of Mattermost's calls-offloader are there",
        "`true` or `false`: serves its contract; then token and tap secret may be missing, and its own names hold too",
    ),
    ("OFFLOADER_MATTERMOST_QUEUE", "8", "jobs of Mattermost's that may wait for their turn; 0: refused at once, as calls-offloader does"),
    ("OFFLOADER_MATTERMOST_QUEUE_S", "45", "how long one may wait, in s; the Calls plugin gives up after 60"),
    (
        "OFFLOADER_MATTERMOST_KEEP",
        "false",
        "`true` keeps a sealed copy of what was brought to Mattermost; else it is deleted, and what failed after its retention time",
    ),
    ("OFFLOADER_CONFIG", "none", "file with the same settings in TOML, in small letters without OFFLOADER_; the environment wins"),
    ("RUST_LOG", "info", "what is logged"),
];

/// The table of variables for a terminal.
pub fn variables() -> String {
    let mut text = "Environment:\n".to_owned();
    for (name, default, what) in VARIABLES {
        text += &format!("  {name}\n          {} [default: {default}]\n", what.replace('`', ""));
    }
    text
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 4545)),
            token: String::new(),
            data: PathBuf::from("var/offloader"),
            database: String::new(),
            redis: None,
            poll_ms: 1_000,
            archive: String::new(),
            egress_dir: None,
            egress_s3: Vec::new(),
            disk_free_min_mb: 256,
            site_key_file: PathBuf::new(),
            signing_key_file: PathBuf::new(),
            older_signing_keys: Vec::new(),
            rtcd: "http://127.0.0.1:8045".into(),
            tap_secret: String::new(),
            worker_bin: PathBuf::new(),
            workers_max: 0,
            model_path: None,
            model_sha256: None,
            vad_path: None,
            vad_sha256: None,
            caption_model_path: None,
            caption_model_sha256: None,
            models_dir: None,
            vocabulary: Vocabulary::default(),
            mattermost_enable: None,
            mattermost_queue: 8,
            mattermost_queue_s: 45,
            mattermost_keep: false,
            calls: None,
            data_may_go: false,
        }
    }
}

/// A setting is wrong.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The file is not TOML of ours.
    #[error("settings file {0}: {1}")]
    Toml(PathBuf, toml::de::Error),
    /// One value.
    #[error("{0}: {1}")]
    Value(&'static str, String),
}

impl Settings {
    /// Reads the file, if any, then the environment. A file may hold our settings, those of Mattermost's calls-offloader in its
    /// layout, or both.
    pub fn load(file: Option<&Path>, env: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut ours = toml::Table::new();
        let mut theirs = toml::Table::new();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    let table: toml::Table = toml::from_str(&text).map_err(|error| SettingsError::Toml(path.to_owned(), error))?;
                    (theirs, ours) = table.into_iter().partition(|(key, _)| config::is_table(key));
                }
                // As the original does: its environment alone is enough.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && config::is_there(None, &env) => {}
                Err(error) => return Err(SettingsError::File(path.to_owned(), error)),
            }
        }
        let explicit = |name: &str, key: &str| env(name).is_some_and(|value| !value.is_empty()) || ours.contains_key(key);
        let (own_listen, own_data) = (explicit("OFFLOADER_LISTEN", "listen"), explicit("OFFLOADER_DATA", "data"));
        let of_file = |error| SettingsError::Toml(file.map_or_else(PathBuf::new, Path::to_owned), error);
        let mut settings: Self = toml::Value::Table(ours).try_into().map_err(of_file)?;
        settings.overlay(&env)?;
        let theirs = (!theirs.is_empty()).then_some(theirs);
        if settings.mattermost_enable.unwrap_or_else(|| config::is_there(theirs.as_ref(), &env)) {
            let calls = CallsConfig::read(theirs.as_ref(), &env)?;
            if !own_listen {
                settings.listen = calls.listen;
            }
            if !own_data {
                (settings.data, settings.data_may_go) = calls_offloader::data_folder(&calls, env("STATE_DIRECTORY"));
            }
            settings.calls = Some(calls);
        }
        settings.complete()?;
        Ok(settings)
    }

    fn overlay(&mut self, env: impl Fn(&str) -> Option<String>) -> Result<(), SettingsError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let set = |target: &mut String, name: &str| env(name).into_iter().for_each(|value| *target = value);
        set(&mut self.token, "OFFLOADER_TOKEN");
        set(&mut self.database, "OFFLOADER_DATABASE");
        set(&mut self.archive, "OFFLOADER_ARCHIVE");
        set(&mut self.rtcd, "OFFLOADER_RTCD");
        set(&mut self.tap_secret, "OFFLOADER_TAP_SECRET");
        let path = |target: &mut PathBuf, name: &str| env(name).into_iter().for_each(|value| *target = value.into());
        path(&mut self.data, "OFFLOADER_DATA");
        path(&mut self.site_key_file, "OFFLOADER_SITE_KEY_FILE");
        path(&mut self.signing_key_file, "OFFLOADER_SIGNING_KEY_FILE");
        path(&mut self.worker_bin, "OFFLOADER_WORKER_BIN");
        let model = |target: &mut Option<PathBuf>, name: &str| env(name).into_iter().for_each(|value| *target = Some(value.into()));
        model(&mut self.model_path, "OFFLOADER_MODEL_PATH");
        model(&mut self.vad_path, "OFFLOADER_VAD_PATH");
        model(&mut self.caption_model_path, "OFFLOADER_CAPTION_MODEL_PATH");
        model(&mut self.models_dir, "OFFLOADER_MODELS_DIR");
        model(&mut self.egress_dir, "OFFLOADER_EGRESS_DIR");
        let sum = |target: &mut Option<String>, name: &str| env(name).into_iter().for_each(|value| *target = Some(value));
        sum(&mut self.model_sha256, "OFFLOADER_MODEL_SHA256");
        sum(&mut self.vad_sha256, "OFFLOADER_VAD_SHA256");
        sum(&mut self.caption_model_sha256, "OFFLOADER_CAPTION_MODEL_SHA256");
        sum(&mut self.redis, "OFFLOADER_REDIS");
        if let Some(value) = env("OFFLOADER_VOCABULARY") {
            self.vocabulary =
                value.parse().map_err(|error: VocabularyError| SettingsError::Value("OFFLOADER_VOCABULARY", error.to_string()))?;
        }
        if let Some(value) = env("OFFLOADER_OLDER_SIGNING_KEYS") {
            self.older_signing_keys = value.split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        }
        if let Some(value) = env("OFFLOADER_EGRESS_S3") {
            self.egress_s3 = value.split(',').map(|endpoint| endpoint.trim().to_owned()).filter(|endpoint| !endpoint.is_empty()).collect();
        }
        if let Some(value) = env("OFFLOADER_POLL_MS") {
            self.poll_ms = value.parse().map_err(|_| SettingsError::Value("OFFLOADER_POLL_MS", format!("{value:?} is not a number")))?;
        }
        if let Some(value) = env("OFFLOADER_DISK_FREE_MIN_MB") {
            self.disk_free_min_mb =
                value.parse().map_err(|_| SettingsError::Value("OFFLOADER_DISK_FREE_MIN_MB", format!("{value:?} is not a number")))?;
        }
        if let Some(value) = env("OFFLOADER_LISTEN") {
            self.listen =
                value.parse().map_err(|_| SettingsError::Value("OFFLOADER_LISTEN", format!("{value:?} is not an address and port")))?;
        }
        if let Some(value) = env("OFFLOADER_MATTERMOST_ENABLE") {
            self.mattermost_enable = Some(flag("OFFLOADER_MATTERMOST_ENABLE", &value)?);
        }
        if let Some(value) = env("OFFLOADER_MATTERMOST_KEEP") {
            self.mattermost_keep = flag("OFFLOADER_MATTERMOST_KEEP", &value)?;
        }
        if let Some(value) = env("OFFLOADER_MATTERMOST_QUEUE") {
            self.mattermost_queue =
                value.parse().map_err(|_| SettingsError::Value("OFFLOADER_MATTERMOST_QUEUE", format!("{value:?} is not a number")))?;
        }
        if let Some(value) = env("OFFLOADER_MATTERMOST_QUEUE_S") {
            self.mattermost_queue_s =
                value.parse().map_err(|_| SettingsError::Value("OFFLOADER_MATTERMOST_QUEUE_S", format!("{value:?} is not a number")))?;
        }
        if let Some(value) = env("OFFLOADER_WORKERS_MAX") {
            self.workers_max =
                value.parse().map_err(|_| SettingsError::Value("OFFLOADER_WORKERS_MAX", format!("{value:?} is not a number")))?;
        }
        Ok(())
    }

    /// Fills what follows from the rest and checks it.
    fn complete(&mut self) -> Result<(), SettingsError> {
        // Workers get these paths and have another working directory in mind.
        self.data = std::path::absolute(&self.data).map_err(|error| SettingsError::File(self.data.clone(), error))?;
        let default_path = |target: &mut PathBuf, name: &str, data: &Path| {
            if target.as_os_str().is_empty() {
                *target = data.join(name);
            }
        };
        default_path(&mut self.site_key_file, "keys/site.key", &self.data);
        default_path(&mut self.signing_key_file, "keys/signing.pk8", &self.data);
        if self.database.is_empty() {
            self.database = format!("sqlite://{}", self.data.join("offloader.db").display());
        }
        if self.archive.is_empty() {
            self.archive = format!("file://{}", self.data.join("archive").display());
        }
        if self.worker_bin.as_os_str().is_empty() {
            let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("offload-worker")));
            self.worker_bin = beside.unwrap_or_else(|| "offload-worker".into());
        }
        if self.workers_max == 0 {
            self.workers_max = std::thread::available_parallelism().map_or(1, usize::from);
        }
        // A site that has only Mattermost's settings knows neither: they are made and kept with the data.
        let may_be_made = |secret: &str| self.calls.is_some() && secret.is_empty();
        if self.token.len() < 16 && !may_be_made(&self.token) {
            return Err(SettingsError::Value(
                "OFFLOADER_TOKEN",
                "set it to a secret of at least 16 characters, the same as MESSAGE_SERVER_OFFLOADER_TOKEN".into(),
            ));
        }
        if self.tap_secret.len() < 16 && !may_be_made(&self.tap_secret) {
            return Err(SettingsError::Value(
                "OFFLOADER_TAP_SECRET",
                "set it to the media node's RTCD_TAP_SECRET, at least 16 characters".into(),
            ));
        }
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| self.database.starts_with(scheme)) {
            return Err(SettingsError::Value("OFFLOADER_DATABASE", "must begin with sqlite:// or postgres://".into()));
        }
        if self.mattermost_queue > 1_000 || !(1..=3_600).contains(&self.mattermost_queue_s) {
            let why = format!("{} is not within 1 and 3600, or OFFLOADER_MATTERMOST_QUEUE is above 1000", self.mattermost_queue_s);
            return Err(SettingsError::Value("OFFLOADER_MATTERMOST_QUEUE_S", why));
        }
        if !(100..=3_600_000).contains(&self.poll_ms) {
            return Err(SettingsError::Value("OFFLOADER_POLL_MS", format!("{} is not within 100 and 3600000", self.poll_ms)));
        }
        self.check_models()?;
        for endpoint in &mut self.egress_s3 {
            *endpoint = s3_endpoint(endpoint).ok_or_else(|| {
                SettingsError::Value("OFFLOADER_EGRESS_S3", format!("{endpoint:?} is not of the form https://HOST[:PORT]"))
            })?;
        }
        self.check_redis()
    }

    fn check_models(&mut self) -> Result<(), SettingsError> {
        let Some(folder) = &mut self.models_dir else { return Ok(()) };
        let wrong = |text: String| SettingsError::Value("OFFLOADER_MODELS_DIR", text);
        *folder = std::path::absolute(&folder).map_err(|error| SettingsError::File(folder.clone(), error))?;
        if let Err(error) = std::fs::read_dir(&folder) {
            return Err(wrong(format!("{} cannot be read as a folder ({error}): correct the path, or leave this unset", folder.display())));
        }
        if self.model_path.is_none() {
            return Err(wrong("set OFFLOADER_MODEL_PATH too: jobs that name no size, or one that is not there, get that model".into()));
        }
        Ok(())
    }

    fn check_redis(&self) -> Result<(), SettingsError> {
        let Some(url) = &self.redis else { return Ok(()) };
        let wrong = |text: &str| Err(SettingsError::Value("OFFLOADER_REDIS", text.to_owned()));
        if url.starts_with("rediss:") {
            return wrong("TLS is not spoken here: use redis:// on the site's inner network, or a tunnel");
        }
        if redis::Client::open(url.as_str()).is_err() {
            return wrong("must be redis://[:PASSWORD@]HOST[:PORT][/NUMBER] or unix:///PATH");
        }
        if self.database.starts_with("sqlite:") {
            return wrong(
                "one offloader alone has a SQLite database and nobody to wake: set OFFLOADER_DATABASE to postgres://… or leave this unset",
            );
        }
        Ok(())
    }

    /// Bytes that stay free on the data folder's disk.
    pub fn disk_free_min(&self) -> u64 {
        self.disk_free_min_mb.saturating_mul(1024 * 1024)
    }

    /// Pause between two looks for work.
    pub fn poll(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.poll_ms)
    }

    /// One line for the log; secrets only as set or unset.
    pub fn summary(&self) -> String {
        let known = |set: bool| if set { "set" } else { "unset" };
        // What stands before the host may be a password, and so may a parameter.
        let host = |url: &str| {
            let plain = url.split('?').next().unwrap_or_default();
            plain.rsplit_once('@').map_or(plain, |(_, host)| host).to_owned()
        };
        let database = host(&self.database);
        let redis = self.redis.as_deref().map_or("unset".to_owned(), host);
        format!(
            "listen={} data={} database={} redis={} poll_ms={} archive={} rtcd={} worker_bin={} workers_max={} token={} tap_secret={} model={} caption_model={} models_dir={} vad={} {}",
            self.listen,
            self.data.display(),
            database,
            redis,
            self.poll_ms,
            self.archive,
            self.rtcd,
            self.worker_bin.display(),
            self.workers_max,
            known(!self.token.is_empty()),
            known(!self.tap_secret.is_empty()),
            known(self.model_path.is_some()),
            known(self.caption_model_path.is_some() || self.model_path.is_some()),
            known(self.models_dir.is_some()),
            known(self.vad_path.is_some()),
            self.mattermost_summary(),
        )
    }

    fn mattermost_summary(&self) -> String {
        let Some(calls) = &self.calls else { return "mattermost=off".into() };
        format!(
            "mattermost=on mattermost_queue={} mattermost_queue_s={} mattermost_keep={} max_concurrent_jobs={} failed_jobs_retention_s={} \
             allow_self_registration={} admin={} tls={}",
            self.mattermost_queue,
            self.mattermost_queue_s,
            self.mattermost_keep,
            calls.max_jobs,
            calls.retention.map_or("for_ever".to_owned(), |time| time.as_secs().to_string()),
            calls.self_registration,
            if calls.admin_secret.is_some() { "set" } else { "unset" },
            calls.tls.is_some(),
        )
    }
}

/// An endpoint in the one form in which it is compared; with a path, a name or a password in it, it is none.
fn s3_endpoint(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/').to_ascii_lowercase();
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then_some(text)
}

fn flag(name: &'static str, value: &str) -> Result<bool, SettingsError> {
    value.parse().map_err(|_| SettingsError::Value(name, format!("{value:?} is neither true nor false")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    const SECRETS: [(&str, &str); 2] = [("OFFLOADER_TOKEN", "0123456789abcdef"), ("OFFLOADER_TAP_SECRET", "0123456789abcdef")];

    #[test]
    fn environment_wins_over_the_file_and_defaults_follow_the_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("offloader.toml");
        std::fs::write(&file, "rtcd = \"http://file:1\"\ndata = \"/nowhere\"\nworkers_max = 3\n").unwrap();
        let mut pairs = SECRETS.to_vec();
        pairs.push(("OFFLOADER_DATA", "/srv/x"));
        pairs.push(("OFFLOADER_VOCABULARY", "Okafor, Ní Dhuinn"));
        let settings = Settings::load(Some(&file), env(&pairs)).unwrap();
        assert_eq!((settings.rtcd.as_str(), settings.workers_max), ("http://file:1", 3));
        assert_eq!(settings.vocabulary.entries().collect::<Vec<_>>(), ["Okafor", "Ní Dhuinn"]);
        assert_eq!(settings.database, "sqlite:///srv/x/offloader.db");
        assert_eq!(settings.archive, "file:///srv/x/archive");
        assert_eq!(settings.site_key_file, PathBuf::from("/srv/x/keys/site.key"));
        assert!(!settings.summary().contains("0123456789abcdef"));
        for database in ["postgres://me:can@ry@db/jobs", "postgres://db/jobs?password=can@ry"] {
            let summary = Settings { database: database.to_owned(), ..settings.clone() }.summary();
            assert!(summary.contains("db/jobs ") && !summary.contains("ry@") && !summary.contains("password"), "{summary}");
        }
    }

    #[test]
    fn every_variable_that_is_read_stands_in_the_table_and_in_the_guide() {
        let code = include_str!("settings.rs").split("#[cfg(test)]").next().unwrap();
        let read: Vec<&str> = code
            .split("\"OFFLOADER_")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
            .collect();
        assert!(read.len() > 40, "{read:?}");
        for name in read {
            assert!(VARIABLES.iter().any(|(known, _, _)| known.strip_prefix("OFFLOADER_") == Some(name)), "OFFLOADER_{name}");
        }
        let guide = include_str!("../../../docs/install.md");
        for (name, default, what) in VARIABLES {
            let row = format!("| `{name}` | {default} | {what} |");
            assert!(guide.contains(&row), "docs/install.md must have this row:\n{row}");
        }
    }

    #[test]
    fn with_settings_of_a_calls_offloader_alone_nothing_of_ours_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let text = "[api]\nhttp.listen_address = \"127.0.0.1:4546\"\nsecurity.session_cache.expiration_minutes = 5\n[store]\n\
                    data_source = \"/srv/calls/db\"\n[jobs]\napi_type = \"docker\"\nmax_concurrent_jobs = 3\n[logger]\nenable_file = false\n";
        std::fs::write(&file, text).unwrap();
        let settings = Settings::load(Some(&file), env(&[])).unwrap();
        assert_eq!(settings.listen, "127.0.0.1:4546".parse().unwrap());
        assert_eq!((settings.data.to_str(), settings.data_may_go), (Some("/srv/calls/db/conclave"), false));
        assert_eq!(settings.calls.as_ref().map(|calls| calls.max_jobs), Some(3));
        assert!(settings.summary().contains("mattermost=on") && settings.token.is_empty());
        // Both in one file, and ours win where both say something.
        std::fs::write(&file, format!("workers_max = 5\nlisten = \"127.0.0.1:1\"\n{text}")).unwrap();
        let settings = Settings::load(Some(&file), env(&[("OFFLOADER_DATA", "/srv/ours")])).unwrap();
        assert_eq!((settings.workers_max, settings.listen.port(), settings.data.to_str()), (5, 1, Some("/srv/ours")));
        // A secret that is given must be one; switched off, ours are needed again; a file that is not there is none of its own.
        assert!(Settings::load(Some(&file), env(&[("OFFLOADER_TOKEN", "short")])).is_err());
        assert!(Settings::load(Some(&file), env(&[("OFFLOADER_MATTERMOST_ENABLE", "false")])).is_err());
        let missing = dir.path().join("missing.toml");
        assert!(Settings::load(Some(&missing), env(&SECRETS)).is_err());
        let chart = [("API_SECURITY_ALLOWSELFREGISTRATION", "true"), ("JOBS_APITYPE", "kubernetes"), ("JOBS_MAXCONCURRENTJOBS", "1")];
        let settings = Settings::load(Some(&missing), env(&chart)).unwrap();
        assert_eq!((settings.listen.port(), settings.data_may_go), (4545, true));
        assert!(Settings::load(None, env(&SECRETS)).unwrap().calls.is_none());
    }

    #[test]
    fn older_signing_keys_are_a_list_of_files_and_a_bad_one_names_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        let pem = dir.path().join("older.pem");
        let other = archive::keys::SiteSigner::from_pkcs8(&archive::keys::SiteSigner::generate_pkcs8().unwrap()).unwrap().public();
        std::fs::write(&pem, other.to_pem()).unwrap();
        let data = dir.path().join("data").display().to_string();
        let keys = |list: &str| {
            let pairs = [&SECRETS[..], &[("OFFLOADER_DATA", &data), ("OFFLOADER_OLDER_SIGNING_KEYS", list)]].concat();
            crate::keys::Keys::load(&Settings::load(None, env(&pairs)).unwrap())
        };
        let loaded = keys(&format!(" {},", pem.display())).unwrap();
        assert!(loaded.signer.knows(other) && loaded.signer.knows(loaded.signer.public()));
        assert!(!keys("").unwrap().signer.knows(other));
        std::fs::write(&pem, "a private key perhaps").unwrap();
        for list in [pem.display().to_string(), "/nowhere/older.pem".to_owned()] {
            let error = format!("{:#}", keys(&list).err().unwrap());
            assert!(error.contains("OFFLOADER_OLDER_SIGNING_KEYS") && error.contains(&list), "{error}");
        }
    }

    #[test]
    fn endpoints_of_s3_have_one_form() {
        let with = |value: &str| {
            let pairs = [&SECRETS[..], &[("OFFLOADER_EGRESS_S3", value)]].concat();
            Settings::load(None, env(&pairs)).map(|settings| settings.egress_s3)
        };
        assert_eq!(with("https://S3.example/, http://127.0.0.1:9000,").unwrap(), ["https://s3.example", "http://127.0.0.1:9000"]);
        for wrong in ["s3.example", "https://s3.example/bucket", "https://me:word@s3.example", "https://", "ftp://s3.example"] {
            assert!(with(wrong).err().is_some_and(|error| error.to_string().contains("OFFLOADER_EGRESS_S3")), "{wrong}");
        }
    }

    #[test]
    fn missing_secret_or_wrong_value_names_its_setting() {
        let name = |pairs: &[(&str, &str)]| Settings::load(None, env(pairs)).err().unwrap().to_string();
        assert!(name(&[]).contains("OFFLOADER_TOKEN"));
        assert!(name(&SECRETS[..1]).contains("OFFLOADER_TAP_SECRET"));
        let mut pairs = SECRETS.to_vec();
        pairs.push(("OFFLOADER_LISTEN", "here"));
        assert!(name(&pairs).contains("OFFLOADER_LISTEN"));
        pairs.pop();
        pairs.push(("OFFLOADER_VOCABULARY", "Okafor\nKubernetes"));
        assert!(name(&pairs).contains("OFFLOADER_VOCABULARY"));
        pairs.pop();
        // A folder that is none, and one without a model for whoever names no size.
        for folder in ["/nowhere/models", env!("CARGO_MANIFEST_DIR")] {
            pairs.push(("OFFLOADER_MODELS_DIR", folder));
            assert!(name(&pairs).contains("OFFLOADER_MODELS_DIR"), "{folder}");
            pairs.pop();
        }
        pairs.push(("OFFLOADER_DATABASE", "mysql://x"));
        assert!(name(&pairs).contains("OFFLOADER_DATABASE"));
        for (redis, database) in
            [("rediss://r", "postgres://x"), ("http://r", "postgres://x"), ("redis://r", "sqlite://x"), ("redis://r:x", "postgres://x")]
        {
            let name = name(&[&SECRETS[..], &[("OFFLOADER_REDIS", redis), ("OFFLOADER_DATABASE", database)]].concat());
            assert!(name.contains("OFFLOADER_REDIS"), "{name}");
        }
        let pairs =
            [&SECRETS[..], &[("OFFLOADER_REDIS", "redis://:hunter2@r/1"), ("OFFLOADER_DATABASE", "postgres://u:hunter2@d/x")]].concat();
        let summary = Settings::load(None, env(&pairs)).unwrap().summary();
        assert!(summary.contains("redis=r/1") && !summary.contains("hunter2"), "{summary}");
    }
}
