//! Figures of Mattermost's rtcd that a session knows and the core's events do not tell.

use super::{BUCKETS_A, BUCKETS_B, BUCKETS_DEFAULT, Histogram, Metrics, OTHER_TENANTS};
use crate::limits::TENANT_SERIES_MAX;

/// A histogram by tenant (`groupID`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Waiting for the signalling lock, s.
    LockGrabTime,
    /// Holding it, s.
    LockLockedTime,
    /// Loss as the client reports it, 0 to 1.
    ClientLossRate,
    /// Round trip as the client reports it, s.
    ClientRtt,
    /// Jitter as the client reports it, s.
    ClientJitter,
}

/// What went wrong for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No offer came in time, or one that cannot be answered.
    Signaling,
    /// A track could not be added or removed.
    Track,
    /// The signalling lock was not to be had.
    SignalingLockTimeout,
}

impl Metrics {
    /// A session measured something.
    pub fn observe_session(&self, tenant: &str, measure: Measure, value: f64) {
        let mut inner = self.lock();
        let tenant = inner.tenant(tenant);
        let (family, buckets) = match measure {
            Measure::LockGrabTime => (&mut inner.lock_grab_time, BUCKETS_DEFAULT),
            Measure::LockLockedTime => (&mut inner.lock_locked_time, BUCKETS_DEFAULT),
            Measure::ClientLossRate => (&mut inner.loss, BUCKETS_B),
            Measure::ClientRtt => (&mut inner.rtt, BUCKETS_A),
            Measure::ClientJitter => (&mut inner.jitter, BUCKETS_A),
        };
        // A client may send anything as a number.
        if value.is_finite() {
            family.entry(tenant).or_insert_with(|| Histogram::new(buckets)).observe(value.max(0.0));
        }
    }

    /// Something went wrong for a session.
    pub fn observe_session_error(&self, tenant: &str, error: SessionError) {
        let kind = match error {
            SessionError::Signaling => "signaling",
            SessionError::Track => "track",
            SessionError::SignalingLockTimeout => "signaling_lock_timeout",
        };
        let mut inner = self.lock();
        let tenant = inner.tenant(tenant);
        *inner.errors.entry((tenant, kind)).or_default() += 1;
    }
}

impl super::Inner {
    /// A tenant's label: its name, or [`OTHER_TENANTS`] where too many have series already.
    pub(super) fn tenant(&mut self, tenant: &str) -> String {
        if !self.tenants.contains(tenant) {
            if self.tenants.len() >= TENANT_SERIES_MAX {
                return OTHER_TENANTS.to_owned();
            }
            self.tenants.insert(tenant.to_owned());
        }
        tenant.to_owned()
    }
}

/// The families that only sessions feed. Those without a session are not there at all.
pub(super) fn families(text: &mut super::Text, inner: &super::Inner) {
    let locks = [
        ("rtcd_rtc_signaling_lock_grab_time", "Waiting for the signalling lock, s.", &inner.lock_grab_time),
        ("rtcd_rtc_signaling_lock_locked_time", "Holding the signalling lock, s.", &inner.lock_locked_time),
    ];
    for (name, help, by_tenant) in locks.into_iter().filter(|(.., by_tenant)| !by_tenant.is_empty()) {
        text.histograms(name, help, by_tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Text, events};
    use super::*;

    #[test]
    fn measures_have_the_names_labels_and_buckets_of_the_original() {
        let metrics = Metrics::default();
        for (measure, value) in [
            (Measure::LockGrabTime, 0.004),
            (Measure::LockLockedTime, 0.004),
            (Measure::ClientLossRate, 0.28),
            (Measure::ClientRtt, 0.28),
            (Measure::ClientJitter, 0.35),
            (Measure::ClientJitter, f64::NAN),
        ] {
            metrics.observe_session("a", measure, value);
        }
        metrics.observe_session_error("a", SessionError::SignalingLockTimeout);
        let mut text = Text::default();
        events(&mut text, &metrics);
        let page = text.into_string();
        let bounds = |name: &str| -> Vec<String> {
            let of = page.lines().filter(|line| line.starts_with(&format!("rtcd_rtc_{name}_bucket{{groupID=\"a\"")));
            of.filter_map(|line| Some(line.split_once("le=\"")?.1.split_once('"')?.0.to_owned())).collect()
        };
        let (a, b, default) = (
            "0.001 0.005 0.0075 0.01 0.025 0.05 0.075 0.1 0.25 0.3 0.4 0.5 0.75 1 +Inf",
            "0.001 0.005 0.0075 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1 +Inf",
            "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 +Inf",
        );
        for (name, expected) in [
            ("signaling_lock_grab_time", default),
            ("signaling_lock_locked_time", default),
            ("client_loss_rate", b),
            ("client_rtt", a),
            ("client_jitter", a),
        ] {
            assert_eq!(bounds(name).join(" "), expected, "{name}");
        }
        for line in
            ["rtcd_rtc_client_jitter_count{groupID=\"a\"} 1", "rtcd_rtc_errors_total{groupID=\"a\",type=\"signaling_lock_timeout\"} 1"]
        {
            assert!(page.lines().any(|have| have == line), "{line} is missing in\n{page}");
        }
    }
}
