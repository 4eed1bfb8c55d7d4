//! A daemon in a folder of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conclave_proto::v1;
use conclave_proto::v1::jobs_client::JobsClient;
use offloader::Running;
use offloader::settings::Settings;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

pub(crate) const TOKEN: &str = "test-service-token-0123456789";

pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) daemon: Option<Running>,
    pub(crate) http: reqwest::Client,
}

#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        let value = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

pub(crate) type Client = JobsClient<InterceptedService<Channel, Bearer>>;

pub(crate) async fn client(url: &str, token: &str) -> Client {
    let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    JobsClient::with_interceptor(channel, Bearer(token.to_owned()))
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl Fn(&mut Settings)) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut house = Self { dir, daemon: None, http: reqwest::Client::new() };
        house.open(change).await;
        house
    }

    /// A folder without a daemon: for one that is started as a program.
    pub(crate) fn empty() -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap(), daemon: None, http: reqwest::Client::new() };
        house.worker_script();
        house
    }

    /// A daemon with settings of Mattermost's calls-offloader in its environment.
    pub(crate) async fn of_mattermost(env: &[(&str, &str)]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut house = Self { dir: tempfile::tempdir().unwrap(), daemon: None, http: reqwest::Client::new() };
        house.open_as(env, |_| {}).await;
        house
    }

    /// Starts the daemon, again perhaps, in the same folder.
    pub(crate) async fn open(&mut self, change: impl Fn(&mut Settings)) {
        self.open_as(&[], change).await;
    }

    /// The same with more in its environment.
    pub(crate) async fn open_as(&mut self, env: &[(&str, &str)], change: impl Fn(&mut Settings)) {
        // What a test that fails has to say.
        offloader::logging::install(None);
        let data = self.dir.path().join("data");
        let pairs = [
            ("OFFLOADER_LISTEN", "127.0.0.1:0".to_owned()),
            ("OFFLOADER_TOKEN", TOKEN.to_owned()),
            ("OFFLOADER_TAP_SECRET", "test-tap-secret-0123456789".to_owned()),
            ("OFFLOADER_DATA", data.display().to_string()),
            ("OFFLOADER_WORKER_BIN", self.worker_script().display().to_string()),
            ("OFFLOADER_WORKERS_MAX", "2".to_owned()),
        ];
        let env = env.iter().map(|(key, value)| (*key, (*value).to_owned()));
        let pairs: Vec<(&str, String)> = env.chain(pairs).collect();
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone());
        let mut settings = Settings::load(None, find).unwrap();
        change(&mut settings);
        self.daemon = Some(offloader::start(settings).await.unwrap());
    }

    /// Hands the worker's arguments to this test binary, which becomes the worker. They go by the
    /// environment: libtest knows no `--job`.
    pub(crate) fn worker_script(&self) -> PathBuf {
        let path = self.dir.path().join("offload-worker");
        let text = format!(
            "#!/bin/sh\nTEST_WORKER_ARGS=\"$*\"\nTEST_WORKER_DIR={}\nexport TEST_WORKER_ARGS TEST_WORKER_DIR\necho \"works: $*\"\necho \"warns: $*\" >&2\nexec {} worker::worker_process --exact --nocapture --test-threads=1 2>>{}/worker.log >>{}/worker.log\n",
            self.dir.path().display(),
            std::env::current_exe().unwrap().display(),
            self.dir.path().display(),
            self.dir.path().display(),
        );
        std::fs::write(&path, text).unwrap();
        let mut mode = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.daemon.as_ref().unwrap().address)
    }

    pub(crate) async fn client(&self) -> Client {
        client(&self.url(), TOKEN).await
    }

    pub(crate) async fn close(&mut self) {
        self.daemon.take().unwrap().shut_down().await.unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http
            .get(format!("{}/archive/v1{path}", self.url()))
            .bearer_auth(TOKEN)
            .header("x-conclave-actor", "u-officer")
            .header("x-conclave-actor-name", "Olga")
    }

    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}/archive/v1{path}", self.url()))
            .bearer_auth(TOKEN)
            .header("x-conclave-actor", "u-officer")
            .header("x-conclave-actor-name", "Olga")
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// Records a call until at least one segment is closed, stops it, and waits until everything is made.
    pub(crate) async fn recorded(&self, call: &str, title: &str) -> String {
        let mut client = self.client().await;
        let job = client.submit(record(call, title)).await.unwrap().into_inner();
        let dir = self.path("data/recordings").join(&job.recording_id);
        until("a closed segment", || manifest_has(&dir, "\"kind\":\"segment\"")).await;
        client.stop(v1::StopRequest { id: job.id.clone(), reason: "test".into() }).await.unwrap();
        self.settled(&job.recording_id).await;
        job.recording_id
    }

    /// Waits until a recording is sealed and what follows has ended, one way or the other.
    pub(crate) async fn settled(&self, recording: &str) {
        let begun = Instant::now();
        loop {
            let view = self.json(&format!("/recordings/{recording}")).await;
            let ended = |kind: &str| matches!(view[kind]["state"].as_str(), Some("done" | "failed"));
            if view["state"] == "sealed" && ended("render") && ended("transcript") {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not settled: {view:#}\n{}", self.worker_log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn worker_log(&self) -> String {
        std::fs::read_to_string(self.path("worker.log")).unwrap_or_default()
    }
}

pub(crate) fn record(call: &str, title: &str) -> v1::SubmitRequest {
    let params = serde_json::json!({
        "call_id": call, "tenant": "t", "channel_id": "ch-1", "channel_name": "Town square", "title": title, "started_by": "u-1",
        "notice_version": "1", "notice_text": "This call is being recorded.", "language": "en",
        "consents": [{ "identity": "u-1", "display_name": "Ann", "granted": true, "answered_at_ms": 1 }],
    });
    v1::SubmitRequest {
        kind: v1::JobKind::Record.into(),
        tenant: "t".into(),
        call_id: call.into(),
        idempotency_key: format!("record:{call}:1"),
        params_json: params.to_string(),
        recording_id: String::new(),
    }
}

pub(crate) fn manifest_has(dir: &Path, what: &str) -> bool {
    std::fs::read_to_string(dir.join("manifest.jsonl")).is_ok_and(|text| text.contains(what))
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
