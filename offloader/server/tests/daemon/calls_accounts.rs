//! Mattermost's calls-offloader, asked over HTTP as its plugin and its administrator ask it: version, accounts, what is where.

use axum::http::Method;
use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::house::{House, TOKEN};

pub(crate) const KEY: &str = "a key that is long enough, 32 bytes at least";
pub(crate) const ADMIN: &str = "the admin's secret";
pub(crate) const OPEN: [(&str, &str); 1] = [("API_SECURITY_ALLOWSELFREGISTRATION", "true")];
const WITH_ADMIN: [(&str, &str); 2] = [("API_SECURITY_ENABLEADMIN", "true"), ("API_SECURITY_ADMINSECRETKEY", ADMIN)];

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Status, type and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) async fn ask(house: &House, method: &str, path: &str, auth: &str, body: impl Into<reqwest::Body>) -> Answer {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = house.http.request(method, format!("{}{path}", house.url())).body(body);
    if !auth.is_empty() {
        request = request.header("Authorization", auth);
    }
    let answer = request.send().await.unwrap();
    let kind = answer.headers().get("content-type").map_or(String::new(), |kind| kind.to_str().unwrap().to_owned());
    Answer { status: answer.status().as_u16(), kind, body: answer.text().await.unwrap() }
}

fn account(client: &str, key: &str) -> String {
    json!({ "clientID": client, "authKey": key }).to_string()
}

#[tokio::test]
async fn the_version_passes_the_plugins_gate_and_says_what_we_are() {
    let house = House::of_mattermost(&OPEN).await;
    let answer = ask(&house, "GET", "/version", "", "").await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json"));
    let version = answer.json();
    for field in ["buildDate", "buildVersion", "buildHash", "goVersion"] {
        assert!(version[field].is_string(), "{version}");
    }
    let build = version["buildVersion"].as_str().unwrap().strip_prefix('v').unwrap();
    let numbers: Vec<u32> = build.split('.').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 3 && numbers >= vec![0, 9, 0], "{build}");
    assert_eq!(version["conclaveVersion"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn accounts_answer_as_the_original_does() {
    let house = House::of_mattermost(&[&OPEN[..], &WITH_ADMIN].concat()).await;
    let long = KEY.repeat(3);
    let not_a_text = "json: cannot unmarshal number into Go value of type string";
    for (path, given, status, expected) in [
        ("/register", account("a", "short"), 400, "registration failed: key not long enough"),
        ("/register", account("", KEY), 400, "registration failed: error: empty key"),
        ("/register", account("b", &long), 400, "registration failed: bcrypt: password length exceeds 72 bytes"),
        ("/register", format!(r#"{{"clientID":3,"authKey":"{KEY}"}}"#), 400, not_a_text),
        ("/register", String::new(), 400, "EOF"),
        ("/register", r#"{"clientID":"d""#.to_owned(), 400, "unexpected EOF"),
        ("/register", account("a", KEY), 201, ""),
        ("/register", account("a", KEY), 400, "registration failed: already registered"),
        ("/login", account("a", KEY), 200, ""),
        ("/login", account("a", "wrong"), 400, "login failed: authentication failed"),
        ("/login", account("zz", KEY), 400, "login failed: authentication failed: error: not found"),
        ("/login", "{}".to_owned(), 400, "login failed: authentication failed: error: empty key"),
    ] {
        let answer = ask(&house, "POST", path, "", given.clone()).await;
        assert_eq!((answer.status, answer.kind.as_str()), (status, "application/json"), "{path} {given}");
        let said = answer.json();
        assert_eq!(said["code"], status.to_string(), "a text: {said}");
        assert_eq!(said["error"].as_str().unwrap_or_default(), expected, "{path} {given}");
        assert_eq!(said.get("error").is_none(), status < 300, "{said}");
    }
    assert_eq!(ask(&house, "POST", "/register", "", account("e", KEY)).await.json(), json!({ "clientID": "e", "code": "201" }));
    let token = ask(&house, "POST", "/login", "", account("a", KEY)).await.json()["bearerToken"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 32);
    let bearer = format!("Bearer {token}");
    let admin = basic("whoever", ADMIN);
    for (auth, given, status, expected) in [
        ("", account("a", ""), 401, "authentication failed: invalid auth header"),
        ("Digest x", account("a", ""), 401, "authentication failed: invalid auth header"),
        (&*basic("a", &KEY.to_uppercase()), account("a", ""), 401, "authentication failed"),
        // On every other route this would register it; here nobody new comes in.
        (&*basic("new", KEY), account("new", ""), 401, "authentication failed"),
        (&*basic("a", KEY), account("e", ""), 403, "client id not valid"),
        (&*bearer, account("", ""), 400, "client id should not be empty"),
        (&*admin, account("zz", ""), 400, "unregister failed: error: not found"),
        (&*admin, account("e", ""), 200, ""),
        (&*basic("a", KEY), account("a", ""), 200, ""),
        (&*bearer, account("a", ""), 401, "authentication failed: token is invalid"),
    ] {
        let answer = ask(&house, "POST", "/unregister", auth, given.clone()).await;
        assert_eq!(answer.status, status, "{auth} {given} {answer:?}");
        if status == 200 {
            assert_eq!(answer.body, "");
        } else {
            assert_eq!(answer.json(), json!({ "error": expected, "code": status.to_string() }));
        }
    }
}

#[tokio::test]
async fn closed_houses_let_only_the_admin_and_registered_clients_register() {
    let house = House::of_mattermost(&WITH_ADMIN).await;
    let refused = ask(&house, "POST", "/register", "", account("a", KEY)).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (401, Some("401")));
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("a", KEY), "{}").await.status, 401, "nobody registers by the way");
    assert_eq!(ask(&house, "POST", "/register", &basic("", ADMIN), account("a", KEY)).await.status, 201);
    assert_eq!(ask(&house, "POST", "/register", &basic("a", KEY), account("b", KEY)).await.status, 201);
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("b", KEY), "{}").await.status, 200);
    // With neither admin nor self-registration nobody is removed.
    let closed = House::of_mattermost(&[("JOBS_APITYPE", "kubernetes")]).await;
    let answer = ask(&closed, "POST", "/unregister", &basic("a", KEY), account("a", "")).await;
    assert_eq!((answer.status, answer.json()), (403, json!({ "error": "unregister not enabled", "code": "403" })));
}

#[tokio::test]
async fn init_answers_at_once_and_knows_runners() {
    let house = House::of_mattermost(&OPEN).await;
    let auth = basic("diagnostic-id", KEY);
    let good = json!({ "Runners": ["mattermost/calls-recorder:v0.8.13", "mattermost/calls-transcriber:v0.7.2"] }).to_string();
    let answer = ask(&house, "POST", "/jobs/init", &auth, good).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "registered by the way");
    for (body, begin) in [
        (r#"{"Runners":["evil/calls-recorder:v0.8.13"]}"#.to_owned(), "invalid job service config: "),
        (r#"{"Runners":["mattermost/calls-recorder:latest"]}"#.to_owned(), "invalid job service config: "),
        ("{".to_owned(), "unexpected EOF"),
        (format!(r#"{{"Runners":["{}"]}}"#, "x".repeat(1 << 20)), "http: request body too large"),
    ] {
        let answer = ask(&house, "POST", "/jobs/init", &auth, body).await;
        let said = answer.json();
        assert_eq!((answer.status, said["code"].as_str()), (400, Some("400")), "{said}");
        assert!(said["error"].as_str().unwrap().starts_with(begin), "{said}");
    }
    assert_eq!(ask(&house, "POST", "/jobs/init", "", "{}").await.status, 401);
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("c", "short"), "{}").await.status, 401);
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("diagnostic-id", &KEY.to_uppercase()), "{}").await.status, 401);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_a_wrong_method_is_one_only_among_jobs() {
    let house = House::of_mattermost(&OPEN).await;
    let auth = basic("a", KEY);
    assert_eq!(ask(&house, "GET", "/health", &auth, "").await.status, 200, "registered by the way");
    for (method, path, status) in [
        ("POST", "/version", 404),
        ("GET", "/login", 404),
        ("PUT", "/register", 404),
        ("GET", "/unregister", 404),
        ("GET", "/jobs/init", 405),
        ("DELETE", "/health", 405),
        ("GET", "/", 404),
        ("GET", "/version/", 404),
        ("GET", "/debug/pprof/heap", 404),
        ("GET", "/debug/pprof/goroutine", 404),
    ] {
        let answer = ask(&house, method, path, &auth, "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status == 404 {
            assert_eq!((answer.kind.as_str(), answer.body.as_str()), ("text/plain; charset=utf-8", "404 page not found\n"), "{path}");
        }
    }
    // Ours beside it on the same port, with its own token and no other.
    assert_eq!(ask(&house, "GET", "/archive/v1/recordings", &auth, "").await.status, 401);
    assert_eq!(house.get("/recordings").send().await.unwrap().status(), 200);
    assert_eq!(house.client().await.list(conclave_proto::v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs.len(), 0);
    assert_eq!(ask(&house, "GET", "/healthz", "", "").await.status, 200);
    let health = ask(&house, "GET", "/health", "", "").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    assert_eq!(ask(&house, "GET", "/health", &basic("a", &KEY.to_uppercase()), "").await.status, 401);
    assert_eq!(ask(&house, "GET", "/jobs", &format!("Bearer {TOKEN}"), "").await.status, 401, "and theirs needs theirs");
}

#[tokio::test]
async fn clients_outlive_a_restart_and_bearers_do_not() {
    let mut house = House::of_mattermost(&OPEN).await;
    assert_eq!(ask(&house, "POST", "/register", "", account("a", KEY)).await.status, 201);
    let token = ask(&house, "POST", "/login", "", account("a", KEY)).await.json()["bearerToken"].as_str().unwrap().to_owned();
    assert_eq!(ask(&house, "POST", "/jobs/init", &format!("Bearer {token}"), "{}").await.status, 200);
    house.close().await;
    // Nobody may register any more: only who is there.
    house.open_as(&[("JOBS_APITYPE", "docker")], |_| {}).await;
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("a", KEY), "{}").await.status, 200);
    assert_eq!(ask(&house, "POST", "/jobs/init", &basic("b", KEY), "{}").await.status, 401);
    assert_eq!(ask(&house, "POST", "/jobs/init", &format!("Bearer {token}"), "{}").await.status, 401);
}

/// The real program with nothing but the original's own: its flag, its file, its chart's environment.
#[tokio::test]
async fn the_program_starts_with_the_originals_file_and_flag_alone() {
    let house = House::empty();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (config, log) = (house.path("config.toml"), house.path("calls.log"));
    let text = format!(
        "[api]\nhttp.listen_address = \":{port}\"\nsecurity.allow_self_registration = true\nsecurity.session_cache.expiration_minutes = 1440\n\
         [store]\ndata_source = \"{}\"\n[jobs]\napi_type = \"docker\"\nmax_concurrent_jobs = 2\nfailed_jobs_retention_time = \"30d\"\n\
         image_registry = \"mattermost\"\nkubernetes.node_sysctls = \"kernel.unprivileged_userns_clone=1\"\n\
         [logger]\nenable_console = false\nenable_file = true\nfile_json = true\nfile_level = \"DEBUG\"\nfile_location = \"{}\"\n",
        house.path("db").display(),
        log.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_offloader"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OFFLOADER_") || name.starts_with("RUST_LOG")) {
        command.env_remove(name);
    }
    command.arg("-config").arg(&config).env("K8S_NAMESPACE", "mattermost").current_dir(house.dir.path());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut program = crate::jobs::Program(command.spawn().unwrap());
    crate::house::until("the program to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let url = format!("http://127.0.0.1:{port}");
    let version: Value = house.http.get(format!("{url}/version")).send().await.unwrap().json().await.unwrap();
    assert!(version["buildVersion"].as_str().unwrap().starts_with("v0.9."));
    let init = house.http.post(format!("{url}/jobs/init")).header("Authorization", basic("a", KEY)).body("{}").send().await.unwrap();
    assert_eq!(init.status(), 200);
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    assert!(program.0.wait().unwrap().success());
    // Secrets of its own, for nobody else to read.
    for name in ["service.token", "tap.secret", "site.key", "signing.pk8"] {
        let path = house.path("db/conclave/keys").join(name);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said =
        |field: &str, value: &str| lines.iter().filter(|line| line["fields"][field].as_str().is_some_and(|text| text == value)).count();
    assert_eq!((said("setting", "K8S_NAMESPACE"), said("setting", "jobs.kubernetes.node_sysctls")), (1, 1), "{log}");
    assert_eq!(said("data", &house.path("db/conclave").display().to_string()), 1, "{log}");
    assert!(!log.contains(KEY) && !log.contains("$2a$"), "{log}");
}

/// The port speaks TLS to everybody, and plainly to workers of this machine: a job goes through.
#[tokio::test]
async fn the_port_speaks_tls_and_workers_still_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
    let tls = [("API_HTTP_TLS_ENABLE", "true"), ("API_HTTP_TLS_CERTFILE", certificate.as_str()), ("API_HTTP_TLS_CERTKEY", key.as_str())];
    let house = House::of_mattermost(&[&OPEN[..], &tls].concat()).await;
    let port = house.daemon.as_ref().unwrap().address.port();
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).resolve("localhost", ([127, 0, 0, 1], port).into()).build().unwrap();
    let url = format!("https://localhost:{port}");
    let version: Value = client.get(format!("{url}/version")).send().await.unwrap().json().await.unwrap();
    assert!(version["buildVersion"].is_string());
    assert!(reqwest::get(format!("{url}/version")).await.is_err(), "nobody vouches for it elsewhere");
    // Plainly, with a worker process: recorded, sealed, rendered.
    house.recorded("c", "t").await;
}
