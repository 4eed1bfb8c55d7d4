//! The settings of Mattermost's calls-offloader: its TOML layout, its names in the environment, its precedence.
//!
//! A file is taken as it stands, with nothing filled in; where there is none its defaults hold; the environment comes last.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::settings::SettingsError;

/// One setting: its key in the file, its name in the environment, what holds where there is no file.
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) env: &'static str,
    pub(crate) default: &'static str,
}

const fn field(key: &'static str, env: &'static str, default: &'static str) -> Field {
    Field { key, env, default }
}

/// Every setting of the original.
pub(crate) const FIELDS: [Field; 25] = [
    field("api.http.listen_address", "API_HTTP_LISTENADDRESS", ":4545"),
    field("api.http.tls.enable", "API_HTTP_TLS_ENABLE", "false"),
    field("api.http.tls.cert_file", "API_HTTP_TLS_CERTFILE", ""),
    field("api.http.tls.cert_key", "API_HTTP_TLS_CERTKEY", ""),
    field("api.security.enable_admin", "API_SECURITY_ENABLEADMIN", "false"),
    field("api.security.admin_secret_key", "API_SECURITY_ADMINSECRETKEY", ""),
    field("api.security.allow_self_registration", "API_SECURITY_ALLOWSELFREGISTRATION", "false"),
    field("api.security.session_cache.expiration_minutes", "API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "1440"),
    field("store.data_source", "STORE_DATASOURCE", "/tmp/calls-offloader-db"),
    field("jobs.api_type", "JOBS_APITYPE", "docker"),
    field("jobs.max_concurrent_jobs", "JOBS_MAXCONCURRENTJOBS", "2"),
    field("jobs.failed_jobs_retention_time", "JOBS_FAILEDJOBSRETENTIONTIME", ""),
    field("jobs.image_registry", "JOBS_IMAGEREGISTRY", "mattermost"),
    field("jobs.docker.output_logs", "JOBS_DOCKER_OUTPUTLOGS", "false"),
    field("jobs.kubernetes.jobs_resource_requirements", "JOBS_KUBERNETES_JOBSRESOURCEREQUIREMENTS", ""),
    field("jobs.kubernetes.persistent_volume_claim_name", "JOBS_KUBERNETES_PERSISTENTVOLUMECLAIMNAME", ""),
    field("jobs.kubernetes.node_sysctls", "JOBS_KUBERNETES_NODESYSCTLS", ""),
    field("logger.enable_console", "LOGGER_ENABLECONSOLE", "true"),
    field("logger.console_json", "LOGGER_CONSOLEJSON", "false"),
    field("logger.console_level", "LOGGER_CONSOLELEVEL", "INFO"),
    field("logger.enable_file", "LOGGER_ENABLEFILE", "true"),
    field("logger.file_json", "LOGGER_FILEJSON", "true"),
    field("logger.file_level", "LOGGER_FILELEVEL", "DEBUG"),
    field("logger.file_location", "LOGGER_FILELOCATION", "calls-offloader.log"),
    field("logger.enable_color", "LOGGER_ENABLECOLOR", "false"),
];

/// Names that the original, its image or its Helm chart give and that are not needed here: jobs are processes of this machine.
const WITHOUT_EFFECT: [&str; 19] = [
    "JOBS_KUBERNETES_JOBSRESOURCEREQUIREMENTS",
    "JOBS_KUBERNETES_PERSISTENTVOLUMECLAIMNAME",
    "JOBS_KUBERNETES_NODESYSCTLS",
    "JOBS_DOCKER_MAXCONCURRENTJOBS",
    "JOBS_DOCKER_FAILEDJOBSRETENTIONTIME",
    "JOBS_DOCKER_IMAGEREGISTRY",
    "JOBS_KUBERNETES_MAXCONCURRENTJOBS",
    "JOBS_KUBERNETES_FAILEDJOBSRETENTIONTIME",
    "JOBS_KUBERNETES_IMAGEREGISTRY",
    "K8S_NAMESPACE",
    "K8S_JOB_POD_TOLERATIONS",
    "K8S_JOB_POD_TOLERATIONS_FILE",
    "SECURITY_CONTEXT_PRIVILEGED",
    "DOCKER_NETWORK",
    "DOCKER_HOST",
    "DOCKER_API_VERSION",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "HOST_IP",
];

/// Tables of a file in the original's layout.
pub(crate) const TABLES: [&str; 4] = ["api", "store", "jobs", "logger"];

/// How long failed jobs are kept where nothing is said: as in the original's sample. There, nothing said means for ever.
const RETENTION_DEFAULT: Duration = Duration::from_secs(30 * 86_400);

/// Where logs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// To standard error: level and JSON.
    pub console: Option<(String, bool)>,
    /// Colours there.
    pub colours: bool,
    /// To a file: its place, level and JSON.
    pub file: Option<(PathBuf, String, bool)>,
}

/// What the original's settings come to.
#[derive(Clone)]
pub struct CallsConfig {
    /// Address of the port.
    pub listen: SocketAddr,
    /// Certificate and key, if the port speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Password of the admin, if there is one.
    pub admin_secret: Option<String>,
    /// Anybody may register.
    pub self_registration: bool,
    /// Life of a bearer token.
    pub session_life: Duration,
    /// Where the original keeps its clients' keys.
    pub data_source: PathBuf,
    /// Jobs at a time; a recording and a transcription are two.
    pub max_jobs: usize,
    /// How long failed jobs are kept; `None`: for ever.
    pub retention: Option<Duration>,
    /// What stands before the slash of a runner.
    pub registry: String,
    /// Runners are checked (off with `DEV_MODE` or `TEST_MODE`, as there).
    pub check_runners: bool,
    /// What workers write goes to our own output too.
    pub output_logs: bool,
    /// Where logs go.
    pub log: LogConfig,
    /// What was taken and has no effect, or is not understood: to be said once each.
    pub notes: Vec<String>,
}

/// A file's values under dotted keys in small letters.
type Flat = BTreeMap<String, String>;

/// Whether file or environment are those of a calls-offloader.
pub(crate) fn is_there(file: Option<&toml::Table>, env: &impl Fn(&str) -> Option<String>) -> bool {
    let named = |field: &Field| !field.env.starts_with("LOGGER_") && env(field.env).is_some_and(|value| !value.is_empty());
    file.is_some_and(|file| file.keys().any(|key| is_table(key))) || FIELDS.iter().any(named)
}

/// The file that the original looks for by itself, if there is one of a job service: rtcd's has the same name.
pub fn usual_file() -> Option<PathBuf> {
    let path = PathBuf::from("config/config.toml");
    let table: toml::Table = std::fs::read_to_string(&path).ok()?.parse().ok()?;
    table.keys().any(|key| key.eq_ignore_ascii_case("jobs")).then_some(path)
}

/// One of the original's tables, written in whatever case.
pub(crate) fn is_table(key: &str) -> bool {
    TABLES.iter().any(|table| table.eq_ignore_ascii_case(key))
}

impl CallsConfig {
    /// From the original's tables of a file, if there is one with them, and the environment.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub(crate) fn read(file: Option<&toml::Table>, env: &impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let mut flat = Flat::new();
        file.into_iter().flatten().filter(|(key, _)| is_table(key)).for_each(|(key, value)| flatten(key, value, &mut flat));
        let has_file = !flat.is_empty();
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let mut texts = BTreeMap::new();
        for field in &FIELDS {
            let or_default = || if has_file { String::new() } else { field.default.to_owned() };
            let text = env(field.env).or_else(|| flat.remove(field.key)).unwrap_or_else(or_default);
            texts.insert(field.key, text);
        }
        let mut notes: Vec<String> = WITHOUT_EFFECT.into_iter().filter(|name| env(name).is_some()).map(str::to_owned).collect();
        for key in
            ["jobs_resource_requirements", "persistent_volume_claim_name", "node_sysctls"].map(|key| format!("jobs.kubernetes.{key}"))
        {
            let set = texts.get(key.as_str()).is_some_and(|text| !text.is_empty());
            let named = FIELDS.iter().any(|field| field.key == key && notes.iter().any(|note| note == field.env));
            if set && !named {
                notes.push(key);
            }
        }
        notes.extend(flat.into_keys());
        Texts(texts).config(has_file, env("DEV_MODE"), env("TEST_MODE"), notes)
    }
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut Flat) {
    let prefix = prefix.to_lowercase();
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(key, inner)| flatten(&format!("{prefix}.{key}"), inner, into)),
        toml::Value::String(text) => drop(into.insert(prefix, text.clone())),
        other @ (toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)) => drop(into.insert(prefix, other.to_string())),
    }
}

struct Texts(BTreeMap<&'static str, String>);

impl Texts {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn wrong(key: &'static str, why: &str) -> SettingsError {
        let env = FIELDS.iter().find(|field| field.key == key).map_or("", |field| field.env);
        SettingsError::Value(key, format!("{why} (environment: {env})"))
    }

    fn flag(&self, key: &'static str) -> Result<bool, SettingsError> {
        boolean(self.text(key)).ok_or_else(|| Self::wrong(key, "is neither true nor false"))
    }

    fn level(&self, key: &'static str) -> Result<String, SettingsError> {
        let level = match self.text(key).trim().to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" => "error",
            "warn" => "warn",
            "" | "info" | "stdlog" => "info",
            "debug" => "debug",
            "trace" => "trace",
            _ => return Err(Self::wrong(key, "is not a log level; use error, warn, info, debug or trace")),
        };
        Ok(level.to_owned())
    }

    fn config(&self, has_file: bool, dev: Option<String>, test: Option<String>, notes: Vec<String>) -> Result<CallsConfig, SettingsError> {
        let api_type = "jobs.api_type";
        // With a file that does not say it the original starts not at all; ours runs jobs in one way only.
        let known = ["docker", "kubernetes"].contains(&self.text(api_type)) || (has_file && self.text(api_type).is_empty());
        if !known {
            return Err(Self::wrong(api_type, "is neither docker nor kubernetes; either is fine, jobs are processes of this machine"));
        }
        let registry = Some(self.text("jobs.image_registry")).filter(|text| !text.is_empty()).unwrap_or("mattermost");
        let data_source = self.text("store.data_source");
        if data_source.is_empty() {
            return Err(Self::wrong("store.data_source", "should not be empty; name a folder that outlives a restart"));
        }
        Ok(CallsConfig {
            listen: self.listen()?,
            tls: self.tls()?,
            admin_secret: self.admin()?,
            self_registration: self.flag("api.security.allow_self_registration")?,
            session_life: self.session_life()?,
            data_source: data_source.into(),
            max_jobs: self.max_jobs()?,
            retention: self.retention()?,
            registry: registry.to_owned(),
            check_runners: [dev, test].into_iter().flatten().all(|value| boolean(&value) != Some(true)),
            output_logs: self.flag("jobs.docker.output_logs")?,
            log: self.log()?,
            notes,
        })
    }

    fn listen(&self) -> Result<SocketAddr, SettingsError> {
        let key = "api.http.listen_address";
        let text = self.text(key).trim();
        if text.is_empty() {
            return Err(Self::wrong(key, "should not be empty; write :4545 or 127.0.0.1:4545"));
        }
        // As Go understands it: both families.
        let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
        let named = || full.to_socket_addrs().ok()?.min_by_key(SocketAddr::is_ipv6);
        full.parse().ok().or_else(named).ok_or_else(|| Self::wrong(key, "is not an address with a port; write :4545 or 127.0.0.1:4545"))
    }

    fn tls(&self) -> Result<Option<(PathBuf, PathBuf)>, SettingsError> {
        if !self.flag("api.http.tls.enable")? {
            return Ok(None);
        }
        let file = |key: &'static str| match self.text(key) {
            "" => Err(Self::wrong(key, "should not be empty while api.http.tls.enable is true; name a PEM file")),
            path => Ok(PathBuf::from(path)),
        };
        Ok(Some((file("api.http.tls.cert_file")?, file("api.http.tls.cert_key")?)))
    }

    fn admin(&self) -> Result<Option<String>, SettingsError> {
        let key = "api.security.admin_secret_key";
        match (self.flag("api.security.enable_admin")?, self.text(key)) {
            (false, _) => Ok(None),
            (true, "") => Err(Self::wrong(key, "should not be empty while api.security.enable_admin is true")),
            (true, secret) => Ok(Some(secret.to_owned())),
        }
    }

    fn session_life(&self) -> Result<Duration, SettingsError> {
        let key = "api.security.session_cache.expiration_minutes";
        match self.text(key).trim().parse::<u64>() {
            // Ten years; a clock can still add it.
            Ok(minutes @ 1..=5_256_000) => Ok(Duration::from_secs(60 * minutes)),
            Ok(_) | Err(_) => Err(Self::wrong(key, "should be a number of minutes above 0")),
        }
    }

    fn max_jobs(&self) -> Result<usize, SettingsError> {
        let key = "jobs.max_concurrent_jobs";
        match self.text(key).trim().parse::<usize>() {
            Ok(jobs) if jobs > 0 => Ok(jobs),
            Ok(_) | Err(_) => Err(Self::wrong(key, "should be a number above 0; a recording and a transcription are two")),
        }
    }

    fn retention(&self) -> Result<Option<Duration>, SettingsError> {
        let key = "jobs.failed_jobs_retention_time";
        let text = self.text(key);
        if text.is_empty() {
            return Ok(Some(RETENTION_DEFAULT));
        }
        let number = text.strip_suffix(['m', 'h', 'd']).filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
        let number = number.and_then(|number| number.parse::<u64>().ok()).filter(|number| *number < 1_000_000);
        let number = number.ok_or_else(|| Self::wrong(key, "should be a number and m, h or d: 30d; 0d keeps failed jobs for ever"))?;
        let unit = if text.ends_with('m') {
            60
        } else if text.ends_with('h') {
            3_600
        } else {
            86_400
        };
        Ok((number > 0).then(|| Duration::from_secs(number * unit)))
    }

    fn log(&self) -> Result<LogConfig, SettingsError> {
        let console = if self.flag("logger.enable_console")? {
            Some((self.level("logger.console_level")?, self.flag("logger.console_json")?))
        } else {
            None
        };
        let file = match (self.flag("logger.enable_file")?, self.text("logger.file_location")) {
            (false, _) => None,
            (true, "") => return Err(Self::wrong("logger.file_location", "should not be empty while logger.enable_file is true")),
            (true, path) => Some((PathBuf::from(path), self.level("logger.file_level")?, self.flag("logger.file_json")?)),
        };
        Ok(LogConfig { console, colours: self.flag("logger.enable_color")?, file })
    }
}

/// As Go reads it; nothing is false.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, env: &[(&str, &str)]) -> Result<CallsConfig, String> {
        let table: toml::Table = file.parse().unwrap();
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        CallsConfig::read(Some(&table), &find).map_err(|error| error.to_string())
    }

    /// The layout of the original's own documents.
    const SAMPLE: &str = r#"
        [api]
        http.listen_address = ":4545"
        http.tls.enable = false
        http.tls.cert_file = ""
        http.tls.cert_key = ""
        security.allow_self_registration = true
        security.enable_admin = false
        security.admin_secret_key = ""
        security.session_cache.expiration_minutes = 1440
        [store]
        data_source = "/var/lib/calls-offloader"
        [jobs]
        api_type = "docker"
        max_concurrent_jobs = 100
        failed_jobs_retention_time = "30d"
        image_registry = "registry.example.org/mm"
        docker.output_logs = true
        [logger]
        enable_console = true
        console_json = false
        console_level = "INFO"
        enable_file = true
        file_json = true
        file_level = "DEBUG"
        file_location = "calls-offloader.log"
        enable_color = true
    "#;

    #[test]
    fn a_file_of_the_original_is_read_as_it_stands() {
        let config = read(SAMPLE, &[]).unwrap();
        assert_eq!(config.listen, "[::]:4545".parse().unwrap());
        assert!(config.self_registration && config.admin_secret.is_none() && config.tls.is_none() && config.output_logs);
        assert_eq!((config.max_jobs, config.retention), (100, Some(Duration::from_secs(30 * 86_400))));
        assert_eq!((config.registry.as_str(), config.data_source.to_str()), ("registry.example.org/mm", Some("/var/lib/calls-offloader")));
        assert_eq!(config.log.file, Some(("calls-offloader.log".into(), "debug".into(), true)));
        assert_eq!(config.log.console, Some(("info".into(), false)));
        assert!(config.notes.is_empty(), "{:?}", config.notes);
        // Keys in any case, as its decoder takes them; the environment comes last.
        let upper = SAMPLE.replace("max_concurrent_jobs", "Max_Concurrent_Jobs").replace("[jobs]", "[Jobs]");
        assert_eq!(read(&upper, &[]).unwrap().max_jobs, 100);
        assert_eq!(read(SAMPLE, &[("JOBS_MAXCONCURRENTJOBS", "7")]).unwrap().max_jobs, 7);
    }

    #[test]
    fn without_a_file_the_defaults_hold_and_with_one_none_do() {
        let config = read("", &[]).unwrap();
        assert_eq!((config.max_jobs, config.session_life), (2, Duration::from_secs(86_400)));
        assert_eq!((config.listen.port(), config.registry.as_str()), (4545, "mattermost"));
        assert_eq!(config.data_source.to_str(), Some("/tmp/calls-offloader-db"));
        assert!(!config.self_registration && config.check_runners);
        // Not for ever, which is what the original makes of nothing.
        assert_eq!(config.retention, Some(Duration::from_secs(30 * 86_400)));
        for (missing, named) in [
            ("listen_address", "api.http.listen_address"),
            ("expiration_minutes", "api.security.session_cache.expiration_minutes"),
            ("data_source", "store.data_source"),
            ("max_concurrent_jobs", "jobs.max_concurrent_jobs"),
            ("file_location", "logger.file_location"),
        ] {
            let file: String = SAMPLE.lines().filter(|line| !line.contains(missing)).map(|line| format!("{line}\n")).collect();
            let error = read(&file, &[]).err().unwrap_or_default();
            assert!(error.contains(named), "{missing}: {error}");
        }
    }

    #[test]
    fn every_name_of_the_environment_is_read_and_checked() {
        let values = [
            ("API_HTTP_LISTENADDRESS", "127.0.0.1:1"),
            ("API_HTTP_TLS_ENABLE", "true"),
            ("API_HTTP_TLS_CERTFILE", "/c"),
            ("API_HTTP_TLS_CERTKEY", "/k"),
            ("API_SECURITY_ENABLEADMIN", "true"),
            ("API_SECURITY_ADMINSECRETKEY", "secret"),
            ("API_SECURITY_ALLOWSELFREGISTRATION", "true"),
            ("API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "5"),
            ("STORE_DATASOURCE", "/d"),
            ("JOBS_APITYPE", "kubernetes"),
            ("JOBS_MAXCONCURRENTJOBS", "3"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "90m"),
            ("JOBS_IMAGEREGISTRY", "r"),
            ("JOBS_DOCKER_OUTPUTLOGS", "true"),
            ("LOGGER_ENABLECONSOLE", "true"),
            ("LOGGER_CONSOLEJSON", "true"),
            ("LOGGER_CONSOLELEVEL", "WARN"),
            ("LOGGER_ENABLEFILE", "false"),
            ("LOGGER_ENABLECOLOR", "true"),
        ];
        let config = read("", &values).unwrap();
        assert_eq!(config.listen, "127.0.0.1:1".parse().unwrap());
        assert_eq!(config.tls, Some(("/c".into(), "/k".into())));
        assert_eq!(config.admin_secret.as_deref(), Some("secret"));
        assert_eq!((config.session_life.as_secs(), config.max_jobs, config.registry.as_str()), (300, 3, "r"));
        assert_eq!(config.retention, Some(Duration::from_secs(5_400)));
        assert_eq!(config.log, LogConfig { console: Some(("warn".into(), true)), colours: true, file: None });
        for (name, value, key) in [
            ("API_HTTP_LISTENADDRESS", "here", "listen_address"),
            ("API_HTTP_TLS_CERTFILE", "", "cert_file"),
            ("API_SECURITY_ADMINSECRETKEY", "", "admin_secret_key"),
            ("API_SECURITY_ENABLEADMIN", "maybe", "enable_admin"),
            ("API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "0", "expiration_minutes"),
            ("JOBS_APITYPE", "podman", "api_type"),
            ("JOBS_MAXCONCURRENTJOBS", "0", "max_concurrent_jobs"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "30", "failed_jobs_retention_time"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "-1d", "failed_jobs_retention_time"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "1w", "failed_jobs_retention_time"),
            ("LOGGER_CONSOLELEVEL", "loud", "console_level"),
        ] {
            let changed: Vec<_> = values.iter().map(|pair| if pair.0 == name { (name, value) } else { *pair }).collect();
            let error = read("", &changed).err().unwrap_or_default();
            assert!(error.contains(key) && error.contains(name), "{name}={value}: {error}");
        }
        assert_eq!(read("", &[("JOBS_FAILEDJOBSRETENTIONTIME", "0d")]).unwrap().retention, None);
    }

    #[test]
    fn what_a_chart_gives_is_taken_and_named_once() {
        let chart = [
            ("JOBS_APITYPE", "kubernetes"),
            ("JOBS_MAXCONCURRENTJOBS", "1"),
            ("JOBS_FAILEDJOBSRETENTIONTIME", "7d"),
            ("API_SECURITY_ALLOWSELFREGISTRATION", "true"),
            ("LOGGER_ENABLEFILE", "false"),
            ("STORE_DATASOURCE", "/tmp/calls-offloader-db"),
            ("K8S_NAMESPACE", "mattermost"),
            ("K8S_JOB_POD_TOLERATIONS", "[]"),
            ("SECURITY_CONTEXT_PRIVILEGED", "false"),
            ("JOBS_KUBERNETES_NODESYSCTLS", "kernel.unprivileged_userns_clone=1"),
            ("JOBS_KUBERNETES_PERSISTENTVOLUMECLAIMNAME", ""),
            ("DEV_MODE", "true"),
        ];
        let config = read("", &chart).unwrap();
        let mut notes = config.notes.clone();
        notes.sort();
        assert_eq!(notes, ["JOBS_KUBERNETES_NODESYSCTLS", "K8S_JOB_POD_TOLERATIONS", "K8S_NAMESPACE", "SECURITY_CONTEXT_PRIVILEGED"]);
        assert!(!config.check_runners);
        let file = "[jobs]\nkubernetes.node_sysctls = \"x\"\ndocker.seccomp = 1\n[api]\nhttp.mystery = 2\n";
        let table: toml::Table = file.parse().unwrap();
        let find = |name: &str| {
            let more = [("API_HTTP_LISTENADDRESS", ":1"), ("API_SECURITY_SESSIONCACHE_EXPIRATIONMINUTES", "1"), ("STORE_DATASOURCE", "/d")];
            chart
                .iter()
                .chain(&more)
                .rev()
                .find(|(key, _)| *key == name && *key != "JOBS_KUBERNETES_NODESYSCTLS")
                .map(|(_, v)| (*v).to_owned())
        };
        let notes = CallsConfig::read(Some(&table), &find).unwrap().notes;
        for key in ["jobs.kubernetes.node_sysctls", "jobs.docker.seccomp", "api.http.mystery"] {
            assert_eq!(notes.iter().filter(|note| *note == key).count(), 1, "{notes:?}");
        }
    }

    #[test]
    fn only_its_own_names_and_tables_make_a_calls_offloader() {
        let env =
            |pairs: &'static [(&str, &str)]| move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        assert!(!is_there(None, &env(&[("OFFLOADER_TOKEN", "x"), ("LOGGER_ENABLEFILE", "true"), ("DEV_MODE", "true")])));
        assert!(is_there(None, &env(&[("API_SECURITY_ALLOWSELFREGISTRATION", "true")])));
        let ours: toml::Table = "rtcd = \"http://x\"".parse().unwrap();
        assert!(!is_there(Some(&ours), &env(&[])));
        let theirs: toml::Table = "[jobs]\napi_type = \"docker\"".parse().unwrap();
        assert!(is_there(Some(&theirs), &env(&[])));
    }
}
