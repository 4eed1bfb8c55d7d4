//! What goes in: from the parts as they run, from the data folder, from the machine. What cannot be had is named with the reason.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use conclave_proto::v1;
use reqwest::{Client, Url};
use serde::Serialize;
use serde_json::Value;

use super::Settings;
use super::pack::{ENTRY_MAX, Pack, end_of};
use super::scrub::Scrub;
use crate::{doctor, jobs};

/// One question to one part; a part that hangs must not keep the bundle.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Of one answer over HTTP.
const BODY_MAX: usize = 16 << 20;
/// Log files of one data folder; there are three.
const LOGS_MAX: usize = 16;
/// What of a person is in the API's answers; channel and title are words of people too.
const IDENTIFYING: [&str; 6] = ["identity", "display_name", "remote_address", "title", "channel_name", "client"];

/// Something that is not in the bundle.
#[derive(Debug, Serialize)]
pub(super) struct Missing {
    pub(super) what: String,
    pub(super) why: String,
}

/// A bundle in the making.
pub(super) struct Gather<'a> {
    settings: &'a Settings,
    pub(super) scrub: Scrub,
    pub(super) pack: Pack,
    pub(super) missing: Vec<Missing>,
}

impl<'a> Gather<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let mut scrub = Scrub::new(settings.node.data(), settings.identifying);
        for (name, value) in std::env::vars() {
            let name = name.to_ascii_uppercase();
            if ["TOKEN", "SECRET", "PASSWORD", "_KEY"].iter().any(|part| name.contains(part)) {
                scrub.learn(&value);
            }
        }
        for given in [settings.site.password(), settings.node.given_token(), settings.offloader_token.as_deref()].into_iter().flatten() {
            scrub.learn(given);
        }
        Self { settings, scrub, pack: Pack::default(), missing: Vec::new() }
    }

    /// Everything there is.
    pub(super) async fn all(&mut self) {
        // First what names people and addresses, so that they are known in all the rest.
        self.signed_in().await;
        self.node().await;
        self.over_http().await;
        let listed = jobs::text(&self.settings.offloader, self.settings.offloader_token.as_deref(), self.settings.node.data());
        self.keep("jobs.txt", limited(listed).await);
        let found = limited(async { Ok(doctor::findings(&self.settings.site, &self.settings.node).await) }).await;
        self.keep("doctor.txt", found.map(|found| found.iter().fold(String::new(), |text, finding| text + &finding.to_string() + "\n")));
        self.keep("machine.txt", Ok(machine(self.settings.node.data())));
        self.logs();
    }

    fn keep(&mut self, name: &str, text: anyhow::Result<String>) {
        match text {
            // Cut first: what is thrown away need not be searched.
            Ok(text) => self.pack.add(name, &self.scrub.text(end_of(&text, ENTRY_MAX))),
            Err(error) => {
                let why = self.scrub.text(&format!("{error:#}"));
                self.missing.push(Missing { what: name.to_owned(), why });
            }
        }
    }

    async fn node(&mut self) {
        let status = limited(self.settings.node.node_status()).await;
        if let Ok(status) = &status {
            // A name that is set for browsers is an address, even where it stands alone.
            let advertised = status.settings.get("rtc.ice_host_override").map(String::as_str).unwrap_or_default();
            for name in advertised.split([',', '/', ' ']) {
                self.scrub.learn_address(name);
            }
        }
        let settings = status.as_ref().map(|status| lines(&status.settings)).map_err(|error| anyhow::anyhow!("{error:#}"));
        self.keep("settings/rtcd.txt", settings);
        self.keep("node.txt", status.map(|status| format!("{:#?}\n", v1::NodeStatusResponse { settings: Default::default(), ..status })));
        let calls = limited(self.settings.node.calls()).await;
        if let Ok(calls) = &calls {
            let people = calls.iter().flat_map(|call| &call.participants);
            self.scrub.learn_people(people.flat_map(|person| [person.display_name.clone(), person.identity.clone()]));
        }
        self.keep("calls.txt", calls.map(|calls| calls_text(calls, self.settings.identifying)));
    }

    async fn over_http(&mut self) {
        let client = match self.settings.site.client() {
            Ok(client) => client,
            Err(error) => return self.keep("metrics", Err(error)),
        };
        let asked: [(&str, Option<Url>, &str); 9] = [
            ("metrics/rtcd.txt", self.settings.node.http(), "metrics"),
            ("health/rtcd.txt", self.settings.node.http(), "healthz"),
            ("readiness/rtcd.txt", self.settings.node.http(), "readyz"),
            ("metrics/offloader.txt", self.settings.offloader.parse().ok(), "metrics"),
            ("health/offloader.txt", self.settings.offloader.parse().ok(), "healthz"),
            ("settings/offloader.txt", self.settings.offloader.parse().ok(), "settings"),
            ("metrics/message-server.txt", Some(self.settings.site.server.clone()), "metrics"),
            ("health/message-server.txt", Some(self.settings.site.server.clone()), "healthz"),
            ("settings/message-server.txt", Some(self.settings.site.server.clone()), "settings"),
        ];
        for (name, base, path) in asked {
            let url = base.and_then(|base| base.join(&format!("/{path}")).ok());
            let got = match url {
                Some(url) => limited(read(&client, url)).await,
                None => Err(anyhow::anyhow!("its address is not like http://127.0.0.1:8045")),
            };
            self.keep(name, got);
        }
    }

    /// What only a person with the role ops may see.
    async fn signed_in(&mut self) {
        let names = [("departed.json", "/ops/departed?limit=500"), ("captions.json", "/ops/captions")];
        if self.settings.site.user.is_none() {
            for (name, _) in names {
                let why = "needs a person with the role ops: --user and CONCLAVE_PASSWORD";
                self.missing.push(Missing { what: name.to_owned(), why: why.to_owned() });
            }
            return;
        }
        let session = limited(self.settings.site.sign_in()).await;
        for (name, path) in names {
            let got = match &session {
                Ok(session) => limited(session.get(path)).await,
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            let text = got.and_then(|mut answer| {
                let mut people = Vec::new();
                names_in(&answer, &mut people);
                self.scrub.learn_people(people.into_iter());
                if !self.settings.identifying {
                    without_people(&mut answer);
                }
                Ok(serde_json::to_string_pretty(&answer)?)
            });
            self.keep(name, text);
        }
    }

    fn logs(&mut self) {
        let folder = self.settings.node.data().join("logs");
        let found = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}; give the data folder by --data", folder.display()));
        let mut paths: Vec<PathBuf> = match found {
            Ok(entries) => {
                entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")).collect()
            }
            Err(error) => return self.keep("logs", Err(error)),
        };
        paths.sort();
        if paths.is_empty() {
            self.keep("logs", Err(anyhow::anyhow!("no *.log in {}", folder.display())));
        }
        for path in paths.iter().take(LOGS_MAX) {
            let name = format!("logs/{}", path.file_name().unwrap_or_default().to_string_lossy());
            self.keep(&name, log_end(path).with_context(|| format!("cannot read {}", path.display())));
        }
    }
}

async fn limited<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(ANSWER_MAX, asked).await.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", ANSWER_MAX.as_secs())))
}

async fn read(client: &Client, url: Url) -> anyhow::Result<String> {
    let mut answer = client.get(url.clone()).send().await.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        anyhow::ensure!(body.len() <= BODY_MAX, "{url} answers with more than {} MiB", BODY_MAX >> 20);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    // A part that is not ready says so with a status, and why in its body.
    let told = status.is_success() || status == reqwest::StatusCode::SERVICE_UNAVAILABLE;
    anyhow::ensure!(told, "{url} answers {status}; it tells this only to its own machine: run `conclave support` there");
    Ok(text)
}

fn names_in(value: &Value, names: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        names.extend(["identity", "display_name"].iter().filter_map(|name| Some(fields.get(*name)?.as_str()?.to_owned())));
        fields.values().for_each(|value| names_in(value, names));
    } else if let Value::Array(items) = value {
        items.iter().for_each(|value| names_in(value, names));
    }
}

fn without_people(value: &mut Value) {
    if let Value::Object(fields) = value {
        for name in IDENTIFYING {
            fields.remove(name);
        }
        fields.values_mut().for_each(without_people);
    } else if let Value::Array(items) = value {
        items.iter_mut().for_each(without_people);
    }
}

fn calls_text(mut calls: Vec<v1::CallInfo>, identifying: bool) -> String {
    if !identifying {
        for participant in calls.iter_mut().flat_map(|call| &mut call.participants) {
            for told in [&mut participant.identity, &mut participant.display_name, &mut participant.remote_address, &mut participant.client]
            {
                told.clear();
            }
        }
    }
    calls.iter().fold(String::new(), |text, call| text + &format!("{call:#?}\n"))
}

fn lines(settings: &std::collections::HashMap<String, String>) -> String {
    let mut lines: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
    lines.sort();
    lines.concat()
}

/// The end of a log, without what is for developers: below INFO a line may name people.
fn log_end(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    // Twice, since some of it may be left out.
    let from = bytes.saturating_sub(2 * ENTRY_MAX as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(2 * ENTRY_MAX as u64).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    // The first line is whole only at the beginning of the file.
    let whole = if from == 0 { &text[..] } else { text.split_once('\n').map_or("", |(_, rest)| rest) };
    Ok(whole.lines().filter(|line| !is_detail(line)).fold(String::new(), |text, line| text + line + "\n"))
}

fn is_detail(line: &str) -> bool {
    let level = line.split(' ').find(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()));
    let json = |level: &str| line.contains(&format!("\"level\":\"{level}\""));
    json("DEBUG") || json("TRACE") || matches!(level, Some("DEBUG" | "TRACE"))
}

/// What of the machine decides how calls go. Not its name.
fn machine(data: &Path) -> String {
    let mut text = String::new();
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = file("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").trim_matches('"');
    let _ = writeln!(text, "system: {name}");
    let _ = writeln!(text, "kernel: {}", file("/proc/sys/kernel/osrelease").trim());
    let _ = writeln!(text, "cores: {}", std::thread::available_parallelism().map_or(0, usize::from));
    let _ = writeln!(text, "load: {}", file("/proc/loadavg").trim());
    for line in
        file("/proc/meminfo").lines().filter(|line| ["MemTotal", "MemAvailable", "SwapFree"].iter().any(|name| line.starts_with(name)))
    {
        let _ = writeln!(text, "{line}");
    }
    if let Ok(disk) = rustix::fs::statvfs(data) {
        let _ = writeln!(
            text,
            "data folder's disk: {} MiB free of {} MiB",
            (disk.f_bavail * disk.f_frsize) >> 20,
            (disk.f_blocks * disk.f_frsize) >> 20
        );
    }
    for name in ["rmem_max", "wmem_max", "netdev_max_backlog"] {
        let _ = writeln!(text, "net.core.{name}: {}", file(&format!("/proc/sys/net/core/{name}")).trim());
    }
    // Datagrams that the kernel dropped since it runs: full buffers, wrong checksums.
    for line in file("/proc/net/snmp").lines().filter(|line| line.starts_with("Udp:")) {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_developers_stay_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let kept = "{\"level\":\"INFO\",\"m\":\"joined\"}\n2026-11-21T15:00:00Z  WARN rtcd: odd\nplain text\n";
        std::fs::write(&path, format!("{kept}{}", "{\"level\":\"DEBUG\",\"m\":\"ann\"}\n2026-11-21T15:00:00Z TRACE rtcd: bob\n")).unwrap();
        assert_eq!(log_end(&path).unwrap(), kept);
    }

    #[test]
    fn nothing_of_a_person_is_left_at_any_depth() {
        let mut answer = serde_json::json!({ "departed": [{ "title": "t", "participant": { "display_name": "Ann", "sends": "flows" } }] });
        without_people(&mut answer);
        assert_eq!(answer, serde_json::json!({ "departed": [{ "participant": { "sends": "flows" } }] }));
    }
}
