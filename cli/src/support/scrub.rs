//! What a support bundle may not hold: secrets never, addresses and names only when they were asked for.
//!
//! Nothing that is gathered should hold a secret in the first place. This is the second door: values that are known here, and
//! what looks like one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Shorter ones cannot be told from ordinary words; no secret of ours is.
const SECRET_LEN_MIN: usize = 8;
/// Shorter names are part of too many words.
const NAME_LEN_MIN: usize = 3;
/// A full node and those who have left lately; about 200 KiB.
const PEOPLE_MAX: usize = 4000;
/// Files of keys are short; what is longer in those folders is no key.
const KEY_FILE_MAX: u64 = 64 * 1024;
/// What stands in place of a secret.
const HIDDEN: &str = "[secret]";

/// A name that says what follows is a secret, and its value. Values that are masked already are left alone.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)((?:token|password|passwd|secret|cookie|authorization|api_?key|\bpwd|ice-pwd)\\?["']?\s*[=:]\s*\\?["']?(?:bearer\s+|basic\s+)?)([^\s"'\\,;&}\]]+)"#,
    )
});
/// `scheme://user:password@host`, also `scheme://user@host`.
static USERINFO: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(://)([^/\s"'@]+)@"#));
/// Signed tokens (RFC 7519), and whatever follows `Bearer`.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*|(?i:\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"));
/// A key in PEM, also within a line of JSON.
static PEM: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----"));
static IPV4: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"));
/// Everything that could be part of an IPv6 address; parsed before it is believed.
static WORD: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9A-Za-z_:.%]*:[0-9A-Za-z_:.%]*:[0-9A-Za-z_:.%]*"));
static HOST: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(://(?:[^/\s"'@]*@)?)(\[[^\]\s]*\]|[^/\s"'@:\\,;)]+)"#));

fn pattern(text: &str) -> Regex {
    #[allow(clippy::expect_used, reason = "written above, and each is used in the tests below")]
    Regex::new(text).expect("a valid pattern")
}

/// See the module.
pub(super) struct Scrub {
    secrets: Vec<String>,
    /// `None`: addresses stay.
    addresses: Option<HashMap<String, usize>>,
    people: Vec<String>,
    /// Finds them; made anew when somebody is added.
    people_pattern: Option<Regex>,
    hidden: usize,
}

impl Scrub {
    /// Knows the secrets of a data folder; `identifying` leaves addresses as they are.
    pub(super) fn new(data: &Path, identifying: bool) -> Self {
        let mut scrub =
            Self { secrets: Vec::new(), addresses: (!identifying).then(HashMap::new), people: Vec::new(), people_pattern: None, hidden: 0 };
        for folder in ["secrets", "offloader/keys", "message-server"] {
            scrub.learn_folder(&data.join(folder));
        }
        scrub
    }

    /// A secret that is known from elsewhere.
    pub(super) fn learn(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() >= SECRET_LEN_MIN && !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
            // One may be part of another.
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Small text files of folders that hold keys.
    fn learn_folder(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let is_key =
                |name: &str| folder.ends_with("secrets") || ["key", "token", "secret", "login"].iter().any(|part| name.contains(part));
            let fits = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= KEY_FILE_MAX);
            if !fits || !is_key(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
            for word in text.split([' ', '\n', '=', '"', '\'']) {
                // Lines of PEM, hex, base64; the words around them are ours.
                if word.len() >= 24 && !word.contains("://") && !word.contains("---") {
                    self.learn(word);
                }
            }
            self.learn(&text);
        }
    }

    /// A host name that is an address of the site.
    pub(super) fn learn_address(&mut self, name: &str) {
        if let Some(known) = self.addresses.as_mut().filter(|_| name.len() >= 4 && !harmless(name)) {
            let next = known.len() + 1;
            known.entry(name.to_owned()).or_insert(next);
        }
    }

    /// Names and identities of people, wherever they may stand.
    pub(super) fn learn_people(&mut self, names: impl Iterator<Item = String>) {
        if self.addresses.is_none() {
            return;
        }
        for name in names {
            if name.chars().count() >= NAME_LEN_MIN && self.people.len() < PEOPLE_MAX && !self.people.contains(&name) {
                self.people.push(name);
            }
        }
        // The longer one first, where one begins with another.
        let mut names: Vec<String> = self.people.iter().map(|name| regex::escape(name)).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        self.people_pattern = (!names.is_empty()).then(|| Regex::new(&names.join("|")).ok()).flatten();
    }

    /// The text as it may go out.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            let found = text.matches(secret.as_str()).count();
            if found > 0 {
                self.hidden += found;
                text = text.replace(secret.as_str(), HIDDEN);
            }
        }
        let mut hidden = 0;
        let mut hide = |text: &str, pattern: &Regex, with: &dyn Fn(&Captures<'_>) -> Option<String>| {
            pattern
                .replace_all(text, |found: &Captures<'_>| match with(found) {
                    Some(instead) => {
                        hidden += 1;
                        instead
                    }
                    None => found[0].to_owned(),
                })
                .into_owned()
        };
        text = hide(&text, &PEM, &|_| Some(HIDDEN.to_owned()));
        text = hide(&text, &TOKEN, &|_| Some(HIDDEN.to_owned()));
        text = hide(&text, &USERINFO, &|found| Some(format!("{}{HIDDEN}@", &found[1])));
        text = hide(&text, &NAMED, &|found| (!is_plain(&found[2])).then(|| format!("{}{HIDDEN}", &found[1])));
        self.hidden += hidden;
        if let Some(pattern) = &self.people_pattern {
            text = self.without_people(&text, pattern);
        }
        if let Some(addresses) = &mut self.addresses {
            text = replaced(&text, &HOST, addresses, |found| (found[1].to_owned(), found[2].to_owned()));
            text = replaced(&text, &WORD, addresses, |found| (String::new(), found[0].to_owned()));
            text = replaced(&text, &IPV4, addresses, |found| (String::new(), found[0].to_owned()));
            let mut named: Vec<(&String, &usize)> = addresses.iter().filter(|(name, _)| name.parse::<IpAddr>().is_err()).collect();
            named.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            for (name, number) in named {
                text = text.replace(name.as_str(), &label(*number));
            }
        }
        text
    }

    fn without_people(&self, text: &str, pattern: &Regex) -> String {
        let within_word = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
        pattern
            .replace_all(text, |found: &Captures<'_>| {
                let Some(whole) = found.get(0) else { return String::new() };
                let (before, after) = (text[..whole.start()].chars().next_back(), text[whole.end()..].chars().next());
                match self.people.iter().position(|name| name == whole.as_str()) {
                    Some(number) if !within_word(before) && !within_word(after) => format!("[person {}]", number + 1),
                    Some(_) | None => whole.as_str().to_owned(),
                }
            })
            .into_owned()
    }

    /// How many secrets were in what came.
    pub(super) fn secrets_hidden(&self) -> usize {
        self.hidden
    }

    /// How many different addresses were.
    pub(super) fn addresses_hidden(&self) -> usize {
        self.addresses.as_ref().map_or(0, HashMap::len)
    }
}

/// Said of a secret, but none: `token=set`, a count, or hidden before.
fn is_plain(value: &str) -> bool {
    let value = value.trim_start_matches('[').to_ascii_lowercase();
    matches!(value.as_str(), "set" | "unset" | "none" | "null" | "true" | "false" | "secret" | "bearer" | "basic")
        || value.len() <= 4 && value.bytes().all(|byte| byte.is_ascii_digit())
}

fn label(number: usize) -> String {
    format!("[address {number}]")
}

/// This machine as every machine calls itself.
fn harmless(name: &str) -> bool {
    let bare = name.trim_matches(['[', ']']);
    match bare.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::BROADCAST),
        Err(_) => bare == "localhost" || bare.starts_with("[address"),
    }
}

/// The address that a word is, without its port.
fn address(word: &str) -> Option<(IpAddr, &str)> {
    let word = word.trim_end_matches(['.', ':']);
    // `a::b` is a path in a program far more often than a host.
    if !word.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if let Ok(ip) = word.trim_matches(['[', ']']).parse() {
        return Some((ip, ""));
    }
    let socket: SocketAddr = word.parse().ok()?;
    Some((socket.ip(), &word[word.rfind(':')?..]))
}

fn replaced(text: &str, pattern: &Regex, known: &mut HashMap<String, usize>, parts: impl Fn(&Captures<'_>) -> (String, String)) -> String {
    pattern
        .replace_all(text, |found: &Captures<'_>| {
            let (before, word) = parts(found);
            let (name, rest) = match address(&word) {
                Some((ip, rest)) => (ip.to_canonical().to_string(), rest.to_owned()),
                // A host in a URL is an address too; any other word is none.
                None if !before.is_empty() => (word, String::new()),
                None => return found[0].to_owned(),
            };
            if harmless(&name) || name.starts_with(HIDDEN) || name.starts_with("[address") {
                return found[0].to_owned();
            }
            let next = known.len() + 1;
            format!("{before}{}{rest}", label(*known.entry(name).or_insert(next)))
        })
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(identifying: bool) -> Scrub {
        Scrub::new(Path::new("/nonexistent"), identifying)
    }

    #[test]
    fn what_is_known_to_be_secret_goes_wherever_it_stands() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(data.path().join("secrets")).unwrap();
        std::fs::create_dir_all(data.path().join("message-server")).unwrap();
        std::fs::write(data.path().join("secrets/tap-secret"), "00c0ffee00c0ffee00c0ffee00c0ffee\n").unwrap();
        std::fs::write(data.path().join("message-server/first-login.txt"), "http://x/welcome?token=Zm9vYmFyYmF6cXV4cXV1eGNvcmdl").unwrap();
        let mut scrub = Scrub::new(data.path(), true);
        scrub.learn("hunter2hunter2");
        let text = scrub.text("a 00c0ffee00c0ffee00c0ffee00c0ffee b hunter2hunter2 c Zm9vYmFyYmF6cXV4cXV1eGNvcmdl d");
        assert_eq!(text, "a [secret] b [secret] c [secret] d");
        assert_eq!(scrub.secrets_hidden(), 3);
    }

    #[test]
    fn what_looks_like_a_secret_goes_and_masked_ones_stay_readable() {
        for (text, safe) in [
            ("signal.token=set tap.secret=unset", "signal.token=set tap.secret=unset"),
            ("RTCD_SIGNAL_TOKEN=abcdefg next", "RTCD_SIGNAL_TOKEN=[secret] next"),
            (r#"{"token":"abc-def","n":1}"#, r#"{"token":"[secret]","n":1}"#),
            (r#"{"m":"{\"password\":\"abc\"}"}"#, r#"{"m":"{\"password\":\"[secret]\"}"}"#),
            ("database=postgres://conclave:pw@db/x", "database=postgres://[secret]@db/x"),
            ("redis=redis://:pw@cache:1", "redis=redis://[secret]@cache:1"),
            ("authorization: Bearer abc.def", "authorization: Bearer [secret]"),
            ("got Bearer abcdefghij here", "got [secret] here"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.sig end", "jwt [secret] end"),
            ("/welcome?token=abc&x=1", "/welcome?token=[secret]&x=1"),
            ("-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "[secret]"),
            ("a=ice-pwd:abcdefghijklmnop", "a=ice-pwd:[secret]"),
            ("tokens refused: 17", "tokens refused: 17"),
        ] {
            assert_eq!(scrub(true).text(text), safe);
        }
    }

    #[test]
    fn addresses_become_numbers_that_stay_the_same() {
        let mut scrub = scrub(false);
        scrub.learn_address("calls.example.org");
        assert_eq!(
            scrub.text("10.1.2.3:8443 then 10.1.2.4 then [2001:db8::1]:8443, 10.1.2.3."),
            "[address 3]:8443 then [address 4] then [[address 2]]:8443, [address 3]."
        );
        assert_eq!(scrub.text("::ffff:10.1.2.3 on https://calls.example.org:8066/x"), "[address 3] on https://[address 1]:8066/x");
        assert_eq!(scrub.text("at http://db.site/ and calls.example.org"), "at http://[address 5]/ and [address 1]");
        for same in ["127.0.0.1:8045 0.0.0.0 [::]:1 http://localhost:8065/", "rtcd::shard::run 15:20:25 v0.1.0 a::b fe:ed", "uptime 1.2.3"]
        {
            assert_eq!(scrub.text(same), same);
        }
        assert_eq!(scrub.addresses_hidden(), 5);
    }

    #[test]
    fn people_who_are_known_become_numbers() {
        let mut scrub = scrub(false);
        scrub.learn_people(["Ann", "Ann Example", "u-17", "a"].into_iter().map(str::to_owned));
        assert_eq!(
            scrub.text("Ann Example (u-17) and Ann, not Annex or a u-171"),
            "[person 2] ([person 3]) and [person 1], not Annex or a u-171"
        );
    }

    #[test]
    fn whoever_asks_for_addresses_gets_them() {
        assert_eq!(scrub(true).text("10.1.2.3 at http://db.site/"), "10.1.2.3 at http://db.site/");
    }
}
