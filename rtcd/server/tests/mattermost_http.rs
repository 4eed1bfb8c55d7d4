//! The HTTP side of Mattermost's rtcd: what its plugin, its administrator and its scripts ask the real program.

#![cfg(test)]

mod common;

use std::sync::Arc;

use common::mattermost::{ADMIN, Answer, KEY, Site, ask, basic, loopback};
use common::program::Program;
use common::soon;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Rows 1, 2 and 4: only Mattermost's own names in the environment, no file; then what the plugin's gates read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_mattermosts_environment_alone_it_starts_and_passes_the_plugins_gates() {
    let site = Site::start(&[
        ("RTCD_API_HTTP_TLS_ENABLE", "false"),
        ("RTCD_API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "1440"),
        ("RTCD_RTC_ICESERVERS", r#"["stun:stun.example:3478"]"#),
        ("RTCD_RTC_TURNCONFIG_STATICAUTHSECRET", "x"),
        ("RTCD_RTC_TURNCONFIG_CREDENTIALSEXPIRATIONMINUTES", "1440"),
        ("RTCD_RTC_UDPSOCKETSCOUNT", "200"),
        ("RTCD_RTC_NACKBUFFERSIZE", "256"),
        ("RTCD_RTC_NACKDISABLECOPY", "true"),
        ("RTCD_LOGGER_ENABLECONSOLE", "true"),
        ("RTCD_LOGGER_CONSOLELEVEL", "INFO"),
        ("RTCD_LOGGER_ENABLEFILE", "true"),
        ("RTCD_LOGGER_FILEJSON", "true"),
        ("RTCD_LOGGER_FILELEVEL", "DEBUG"),
        ("RTCD_LOGGER_FILELOCATION", "calls.log"),
    ])
    .await;
    let version = site.ask("GET", "/version", &[], "").await;
    assert_eq!((version.status, version.header("content-type")), (200, "application/json"));
    let version = version.json();
    let mut keys: Vec<&String> = version.as_object().expect("an object").keys().collect();
    keys.sort();
    assert_eq!(keys, ["buildDate", "buildHash", "buildVersion", "goArch", "goOS", "goVersion"]);
    assert!(version.as_object().expect("an object").values().all(serde_json::Value::is_string), "{version}");
    let build = version["buildVersion"].as_str().expect("a text");
    let core = build.strip_prefix('v').and_then(|build| build.split('+').next()).expect("a semver with a v");
    let numbers: Vec<u32> = core.split('.').map(|number| number.parse().expect("a number")).collect();
    assert!(numbers.len() == 3 && numbers >= vec![1, 1, 0], "0.17.0 starts the plugin, 1.1.0 locks signalling: {build}");
    let log = std::fs::read_to_string(site.folder.path().join("calls.log")).expect("the log file");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let about = lines.iter().find_map(|line| line["keys"].as_str()).expect("what is without effect is said");
    assert!(about.contains("rtc.udp_sockets_count") && about.contains("rtc.nack_buffer_size"), "{about}");
    assert_eq!(lines.iter().filter(|line| !line["keys"].is_null()).count(), 1, "once");
}

/// Row 5: one by the idle cores; always a number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_is_a_finite_number() {
    let site = Site::start(&[]).await;
    soon("a measure", async {
        loop {
            let load = site.ask("GET", "/system", &[], "").await;
            assert_eq!((load.status, load.header("content-type")), (200, "application/json"));
            let load = load.json()["cpu_load"].as_f64().expect("a number");
            assert!((0.0..=1000.0).contains(&load), "{load}");
            if load > 0.0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
}

/// Rows 6 and 7: every answer of the three account routes, text by text, as the original gives them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_answer_as_the_original_does() {
    let site = Site::open().await;
    let body = |client: &str, key: &str| json!({ "clientID": client, "authKey": key }).to_string();
    let post = async |path: &str, auth: Option<&str>, body: &str| -> Answer {
        let headers: Vec<(&str, &str)> = auth.map(|auth| ("Authorization", auth)).into_iter().collect();
        site.ask("POST", path, &headers, body).await
    };
    let (x64, x65) = ("x".repeat(64), "x".repeat(65));
    let long = KEY.repeat(3);
    let not_a_text = "json: cannot unmarshal number into Go value of type string";
    for (path, given, status, expected) in [
        ("/register", body("a", "short"), 400, "registration failed: key not long enough"),
        ("/register", body("", "short"), 400, "registration failed: key not long enough"),
        ("/register", body("", KEY), 400, "registration failed: error: empty key"),
        ("/register", body("b", &long), 400, "registration failed: bcrypt: password length exceeds 72 bytes"),
        ("/register", body(&x65, KEY), 400, "registration failed: failed to set key: error: key too large"),
        ("/register", format!(r#"{{"clientID":3,"authKey":"{KEY}"}}"#), 400, not_a_text),
        ("/register", String::new(), 400, "EOF"),
        ("/register", "[]".to_owned(), 400, "json: cannot unmarshal array into Go value of type map[string]string"),
        ("/register", "null".to_owned(), 400, "registration failed: key not long enough"),
        ("/register", r#"{"clientID":"d""#.to_owned(), 400, "unexpected EOF"),
        ("/register", body("a", KEY), 201, ""),
        ("/register", body("a", KEY), 400, "registration failed: already registered"),
        ("/register", body("a", &format!("{KEY}x")), 400, "registration failed: already registered"),
        ("/register", body(&x64, KEY), 201, ""),
        ("/register", body("c", KEY) + " and what follows", 201, ""),
        ("/login", body("a", KEY), 200, ""),
        ("/login", body("a", "wrong"), 400, "login failed: authentication failed"),
        ("/login", body("zz", KEY), 400, "login failed: authentication failed: error: not found"),
        ("/login", "{}".to_owned(), 400, "login failed: authentication failed: error: empty key"),
    ] {
        let answer = post(path, None, &given).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"), "{path} {given}");
        let said = answer.json();
        assert_eq!(said["code"], status.to_string(), "a text: {said}");
        assert_eq!(said["error"].as_str().unwrap_or_default(), expected, "{path} {given}");
        assert_eq!(said.get("error").is_none(), status < 300, "{said}");
        assert!(answer.body.ends_with("}\n"), "as Go's encoder ends it");
    }
    assert_eq!(post("/register", None, &body("e", KEY)).await.json(), json!({ "clientID": "e", "code": "201" }));
    let token = post("/login", None, &body("a", KEY)).await.json()["bearerToken"].as_str().expect("a token").to_owned();
    assert_eq!(token.len(), 32);
    let bearer = format!("Bearer {token}");
    let (of_a, admin) = (basic("a", KEY), basic("whoever", ADMIN));
    for (auth, given, status, expected) in [
        (None, body("a", ""), 401, "authentication failed: invalid auth header"),
        (Some("Digest x"), body("a", ""), 401, "authentication failed: invalid auth header"),
        (Some("Basic ???"), body("a", ""), 401, "authentication failed: invalid auth header"),
        (Some(&*basic("a", "wrong")), body("a", ""), 401, "authentication failed"),
        (Some(&*basic("nobody", KEY)), body("a", ""), 401, "authentication failed"),
        (Some(&*basic("", "wrong")), body("a", ""), 401, "authentication failed: unauthorized"),
        (Some("Bearer nope"), body("a", ""), 401, "authentication failed: token is invalid"),
        (Some(&*of_a), body("", ""), 400, "client id should not be empty"),
        (Some(&*of_a), body("c", ""), 403, "client id not valid"),
        (Some(&*bearer), body("c", ""), 403, "client id not valid"),
        (Some(&*of_a), "[]".to_owned(), 400, "json: cannot unmarshal array into Go value of type map[string]string"),
        (Some(&*admin), body("zz", ""), 400, "unregister failed: error: not found"),
        (Some(&*admin), body("c", ""), 200, ""),
        (Some(&*bearer), body("a", ""), 200, ""),
        (Some(&*bearer), body("a", ""), 401, "authentication failed: token is invalid"),
        (Some(&*of_a), body("a", ""), 401, "authentication failed"),
    ] {
        let answer = post("/unregister", auth, &given).await;
        let said = answer.json();
        assert_eq!((answer.status, said["error"].as_str().unwrap_or_default()), (status, expected), "{auth:?} {given}");
        assert_eq!(said["code"], status.to_string());
    }
}

/// Row 7: what nobody has turned on is closed; a registered client may register another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_admin_and_self_registration_only_the_registered_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Site::start_in(&folder, &[("RTCD_API_SECURITY_ALLOWSELFREGISTRATION", "true")]).await;
    let new = |client: &str| json!({ "clientID": client, "authKey": KEY }).to_string();
    assert_eq!(ask(program.http(), "POST", "/register", &[], &new("a")).await.status, 201);
    stop(program, Signal::TERM).await;

    // Row 8: the key is there after a restart.
    let program = Site::start_in(&folder, &[]).await;
    let at = program.http();
    let answer = ask(at, "POST", "/register", &[], "no JSON").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (401, Some("authentication failed: invalid auth header")));
    let answer = ask(at, "POST", "/unregister", &[("Authorization", &basic("a", KEY))], &new("a")).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (403, Some("unregister not enabled")));
    assert_eq!(ask(at, "POST", "/register", &[("Authorization", &basic("a", KEY))], &new("b")).await.status, 201);
    assert_eq!(ask(at, "POST", "/login", &[], &new("b")).await.status, 200);
}

/// Row 8: a folder of the original, with the files beside its data. Its keys open, and what is damaged is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_store_is_taken_over() {
    const HASH: &[u8] = b"$2a$10$8lwsC7f7Bq/.OJxkdBpsnuUtHD00HztwwDC6ShOcfMkGhHQKcn9z6";
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    std::fs::create_dir(&store).expect("writable");
    let record = |key: &str, value: &[u8], crc: [u8; 4]| {
        [&[0, 0, 0, key.len() as u8, 0, 0, 0, 0, 0, 0, 0, value.len() as u8], key.as_bytes(), value, &crc, &[0; 8]].concat()
    };
    let good = |key: &str| record(key, HASH, [0xa7, 0x85, 0xbc, 0xab]);
    let data = [good("diagnosticid"), good("gone"), record("bad", HASH, [0; 4])].concat();
    std::fs::write(store.join("000000000.data"), data).expect("writable");
    std::fs::write(store.join("000000001.data"), [record("gone", b"", [0; 4]), good("torn")[..40].to_vec()].concat()).expect("writable");
    for name in ["index", "ttl_index", "meta.json", "config.json", "lock"] {
        std::fs::write(store.join(name), "{}").expect("writable");
    }
    let program = Site::start_in(&folder, &[]).await;
    for (client, status) in [("diagnosticid", 200), ("gone", 400), ("bad", 400), ("torn", 400)] {
        let body = json!({ "clientID": client, "authKey": KEY }).to_string();
        assert_eq!(ask(program.http(), "POST", "/login", &[], &body).await.status, status, "{client}");
    }
}

/// Row 9: no sessions is 404, and the plugin takes that for a call that is over. Texts are plain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_call_that_is_over_are_not_found() {
    let site = Site::open().await;
    site.register("a").await;
    let of_a = basic("a", KEY);
    for (path, expected) in [
        ("/calls/x/sessions", "failed to get session configs: group not found\n"),
        ("/calls/x/sessions/y", "failed to get session config: group not found\n"),
    ] {
        for (auth, status, expected) in
            [(Some(&*of_a), 404, expected), (Some(&*basic("whoever", ADMIN)), 401, "unauthorized\n"), (None, 401, "unauthorized\n")]
        {
            let headers: Vec<(&str, &str)> = auth.map(|auth| ("Authorization", auth)).into_iter().collect();
            let answer = site.ask("GET", path, &headers, "").await;
            assert_eq!((answer.status, answer.body.as_str()), (status, expected), "{path} {auth:?}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        }
    }
}

/// Chapter 2: a wrong method is 404, not 405, HEAD included; and so is every other path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_methods_and_paths_are_not_found() {
    let site = Site::open().await;
    site.register("a").await;
    let of_a = basic("a", KEY);
    for (method, path) in [
        ("POST", "/version"),
        ("HEAD", "/version"),
        ("PUT", "/system"),
        ("HEAD", "/system"),
        ("GET", "/register"),
        ("PUT", "/login"),
        ("GET", "/unregister"),
        ("POST", "/calls/x/sessions"),
        ("HEAD", "/calls/x/sessions"),
        ("GET", "/calls/x/sessions/"),
        ("GET", "/calls/x"),
        ("GET", "/version/"),
        ("GET", "/ws/x"),
        ("GET", "/stats"),
        ("GET", "/debug/pprof/heap"),
        ("GET", "/"),
    ] {
        let answer = site.ask(method, path, &[("Authorization", &of_a)], "").await;
        let body = if method == "HEAD" { "" } else { "404 page not found\n" };
        assert_eq!((answer.status, answer.body.as_str()), (404, body), "{method} {path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8", "{method} {path}");
    }
    assert_eq!(site.ask("POST", "/metrics", &[], "").await.status, 200);
}

/// Row 10: TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_speaks_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    let (cert, key) = (cert.to_str().expect("a path"), key.to_str().expect("a path"));
    let tls = [("RTCD_API_HTTP_TLS_ENABLE", "true"), ("RTCD_API_HTTP_TLS_CERTFILE", cert), ("RTCD_API_HTTP_TLS_CERTKEY", key)];
    let program = Site::start_in(&folder, &tls).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a certificate");
    for (version, name) in [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")] {
        for protocol in ["h2", "http/1.1"] {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .expect("known")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            let stream = tokio::net::TcpStream::connect(program.http()).await.expect("reachable");
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect("localhost".try_into().expect("a name"), stream).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()), "TLS {name}");
            if protocol == "http/1.1" {
                stream.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.expect("sends");
                let mut answer = Vec::new();
                // Ends without a farewell of TLS's, as many servers do.
                let _ = soon("an answer", stream.read_to_end(&mut answer)).await;
                assert!(String::from_utf8_lossy(&answer).contains("buildVersion"), "TLS {name}");
            }
        }
    }
    stop(program, Signal::TERM).await;
    // A key of somebody else.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(key, other.signing_key.serialize_pem()).expect("writable");
    let mut command = Program::command();
    let ended = command.envs(loopback()).envs(tls).current_dir(&folder).output();
    let ended = soon("the end", ended).await.expect("starts");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("do not belong together"), "{ended:?}");
}

/// Row 2: the flag in Go's spellings; a file that is not there is fine, one that is none is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_flag_is_understood_as_go_writes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rtcd.toml");
    // As the sample of the original is written, dotted keys and tables mixed.
    std::fs::write(
        &file,
        "[api]\nhttp.listen_address = \"127.0.0.1:0\"\nhttp.tls.enable = false\nsecurity.allow_self_registration = true\n\
         security.session_cache.expiration_minutes = 60\n[rtc]\nice_address_udp = \"127.0.0.1\"\nice_port_udp = 0\n\
         ice_address_tcp = \"127.0.0.1\"\nice_port_tcp = 0\nice_servers = [\"stun:stun.example:3478\"]\nturn.static_auth_secret = \"\"\n\
         udp_sockets_count = 10\n[store]\ndata_source = \"store\"\n[logger]\nenable_console = true\nconsole_json = false\n\
         console_level = \"INFO\"\nenable_file = true\nfile_location = \"rtcd.log\"\nenable_color = true\n",
    )
    .expect("writable");
    let path = file.to_str().expect("a path");
    for arguments in [vec!["-config", path], vec!["--config", path], vec![&*format!("-config={path}")]] {
        let mut command = Program::command();
        command.args(&arguments).current_dir(&folder);
        let program = Program::spawn(command).await;
        // Self-registration is on in the file alone.
        let answer = ask(program.http(), "POST", "/register", &[], "{}").await;
        assert_eq!(answer.json()["error"], "registration failed: key not long enough", "{arguments:?}");
        stop(program, Signal::INT).await;
    }
    assert!(folder.path().join("rtcd.log").exists() && folder.path().join("store").is_dir());

    let mut command = Program::command();
    command.args(["-config", "nowhere/config.toml"]).envs(loopback()).env("RTCD_STORE_DATASOURCE", "store").current_dir(&folder);
    stop(Program::spawn(command).await, Signal::TERM).await;

    std::fs::write(&file, "[api\n").expect("writable");
    for (arguments, code) in [(["-config", path], 1), (["-nothing", "x"], 2)] {
        let mut command = Program::command();
        let ended = soon("the end", command.args(arguments).envs(loopback()).current_dir(&folder).output()).await.expect("starts");
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}");
    }
}

/// Row 3, without anybody in a call: both signals end it at once, in order.
async fn stop(mut program: Program, signal: Signal) {
    program.signal_with(signal);
    assert_eq!(program.ended().await.code(), Some(0));
}
