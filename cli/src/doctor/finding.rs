//! One thing that was looked at: what was found, and what to do about it.

use std::fmt;

use serde::Serialize;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Ok,
    Warn,
    Fail,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// Which hop.
    pub(super) check: &'static str,
    pub(super) target: String,
    pub(super) outcome: Outcome,
    pub(super) found: String,
    /// Empty when nothing is to do.
    pub(super) fix: String,
}

impl Finding {
    pub(super) fn ok(check: &'static str, target: impl ToString, found: impl Into<String>) -> Self {
        Self { check, target: target.to_string(), outcome: Outcome::Ok, found: found.into(), fix: String::new() }
    }

    pub(super) fn warn(check: &'static str, target: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, target: target.to_string(), outcome: Outcome::Warn, found: found.into(), fix: fix.into() }
    }

    pub(super) fn fail(check: &'static str, target: impl ToString, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, ..Self::warn(check, target, found, fix) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        write!(f, "{word:<5} {:<18} {}: {}", self.check, self.target, self.found)?;
        if !self.fix.is_empty() {
            write!(f, "\n      fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Half of the shortest-lived token of ours: beyond it people are turned away.
const CLOCK_FAIL_MS: i64 = 60_000;
/// Times in recordings and captions differ visibly.
const CLOCK_WARN_MS: i64 = 2_000;

/// Compares a clock with ours, read within so many ms of each other.
pub(super) fn clock(whose: &'static str, said_ms: i64, ours_ms: i64, within_ms: i64) -> Finding {
    let off_ms = said_ms - ours_ms;
    // What the way of the answer may explain is no fault of a clock.
    let off_ms = off_ms.signum() * (off_ms.abs() - within_ms).max(0);
    let found = if off_ms.abs() < 10 {
        "agrees with this machine's".to_owned()
    } else {
        format!("{:.2} s {} this machine's", off_ms.abs() as f64 / 1000.0, if off_ms > 0 { "ahead of" } else { "behind" })
    };
    let fix = "set both machines by NTP (chrony, systemd-timesyncd): tokens are refused and times in recordings are wrong";
    match off_ms.abs() {
        CLOCK_FAIL_MS.. => Finding::fail("clock", whose, found, fix),
        CLOCK_WARN_MS.. => Finding::warn("clock", whose, found, fix),
        _ => Finding::ok("clock", whose, found),
    }
}

/// A warning of the media node: its texts say what is wrong, then what to set.
pub(super) fn own_view(warning: &str) -> Finding {
    let (found, fix) = match warning.split_once("; set ") {
        Some((found, setting)) => (found, format!("set {setting}")),
        None => (warning, String::new()),
    };
    Finding::warn("node", "its own view", found, fix)
}

/// The last line.
pub(super) fn in_short(found: &[Finding]) -> String {
    let count = |outcome| found.iter().filter(|finding| finding.outcome == outcome).count();
    match (count(Outcome::Fail), count(Outcome::Warn)) {
        (0, 0) => "all is well.".to_owned(),
        (0, warnings) => format!("nothing fails; {warnings} to look at."),
        (1, _) => "one thing fails: its fix is above.".to_owned(),
        (fails, _) => format!("{fails} things fail: begin with the first fix above."),
    }
}

/// What a failed request means.
pub(super) fn unreachable(error: &anyhow::Error) -> (String, &'static str) {
    // The outer ones only say that a request was sent, and repeat the address.
    let said = error.root_cause().to_string();
    let lower = said.to_lowercase();
    let fix = if lower.contains("certificate") || lower.contains("unknownissuer") {
        "this machine does not trust the certificate: install the site's own authority here, give the server a certificate it \
         trusts (MESSAGE_SERVER_TLS_CERT), or look past it once with --insecure"
    } else if lower.contains("refused") {
        "nothing listens there: see that the message server runs, and that address and port are right"
    } else if lower.contains("timed out") || lower.contains("timeout") {
        "a firewall on the way drops it: open the port to this network (TCP)"
    } else {
        "see that the message server runs and that a browser on this machine opens the address"
    };
    (said, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_judged_by_what_goes_wrong() {
        let at = 1_700_000_000_000;
        let outcome = |off| clock("media node", at + off, at, 0).outcome;
        assert_eq!(
            [0, 1_900, -2_500, 59_000, -61_000, 3_600_000].map(outcome),
            [Outcome::Ok, Outcome::Ok, Outcome::Warn, Outcome::Warn, Outcome::Fail, Outcome::Fail]
        );
        assert!(clock("media node", at - 61_000, at, 0).to_string().contains("61.00 s behind"));
        assert!(clock("media node", at, at - 61_000, 0).to_string().contains("ahead of"));
        assert_eq!(clock("media node", at + 9_000, at, 8_500).outcome, Outcome::Ok, "a slow answer");
    }
}
