//! Which waiting job goes next, if any fits.
//!
//! Recording is cheap and cannot be repeated: it always goes. Captions take a core each. What is derived
//! waits for a core that captions leave, and never takes the last one from them where there are two. It waits for memory too, unless it
//! would be alone: recordings that are under way need theirs.

use crate::limits::{MEMORY_KEPT, PUBLISHING_MAX, RECORDS_MAX};
use crate::{Job, Kind, State};

/// What a machine can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Workers that keep a core busy (captions, rendering, transcribing).
    pub workers_max: usize,
    /// Bytes that those who run leave free, with what they will still take; `None`: not known.
    pub memory: Option<u64>,
}

/// What it carries now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Recordings.
    pub records: usize,
    /// Live captions.
    pub captions: usize,
    /// Derived jobs.
    pub derived: usize,
    /// Publications.
    pub publishing: usize,
}

impl Load {
    /// One more of that kind.
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Record => self.records += 1,
            Kind::Caption => self.captions += 1,
            Kind::Render | Kind::Transcribe => self.derived += 1,
            Kind::PublishRecording | Kind::PublishTranscript => self.publishing += 1,
        }
    }
}

impl Capacity {
    /// Room for one more of that kind, which takes so many bytes.
    pub fn fits(self, load: Load, kind: Kind, bytes: impl FnOnce() -> u64) -> bool {
        let cores = self.workers_max.max(1);
        let alone = load.captions + load.derived == 0;
        if kind.is_derived() && !alone && self.memory.is_some_and(|memory| memory < bytes().saturating_add(MEMORY_KEPT)) {
            return false;
        }
        match kind {
            Kind::Record => load.records < RECORDS_MAX,
            Kind::Caption => load.captions < cores,
            Kind::PublishRecording | Kind::PublishTranscript => load.publishing < PUBLISHING_MAX,
            Kind::Render | Kind::Transcribe => load.derived < (cores - 1).max(1) && load.captions + load.derived < cores,
        }
    }
}

/// The most urgent of the waiting jobs that fits, the longest waiting first, and of publications those whose server was not found
/// away: many that wait for one server must not keep the places of what goes to another. `bytes` tells what one takes.
pub fn choose<'a>(
    jobs: impl IntoIterator<Item = &'a Job>,
    kinds: &[Kind],
    capacity: Capacity,
    load: Load,
    bytes: impl Fn(&Job) -> u64,
    now_ms: i64,
) -> Option<&'a Job> {
    jobs.into_iter()
        .filter(|job| job.state == State::Queued && job.run_after_ms <= now_ms)
        .filter(|job| kinds.contains(&job.spec.kind) && capacity.fits(load, job.spec.kind, || bytes(job)))
        .min_by_key(|job| {
            let publication = job.spec.kind.made_by().is_some();
            let since_ms = if publication { job.run_after_ms } else { job.created_at_ms };
            // Both kinds of publication share their places.
            let urgency = urgency(if publication { Kind::PublishRecording } else { job.spec.kind });
            (urgency, publication && job.blocked > 0, since_ms)
        })
}

fn urgency(kind: Kind) -> usize {
    Kind::ALL.iter().position(|other| *other == kind).unwrap_or(Kind::ALL.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    fn waiting(kind: Kind, created_at_ms: i64) -> Job {
        let spec = Spec {
            kind,
            tenant: String::new(),
            call_id: String::new(),
            recording_id: String::new(),
            idempotency_key: String::new(),
            params: String::new(),
        };
        Job::new(format!("{}-{created_at_ms}", kind.name()), spec, created_at_ms)
    }

    fn next(jobs: &[Job], workers_max: usize, load: Load) -> Option<String> {
        choose(jobs, &Kind::ALL, Capacity { workers_max, memory: None }, load, |_| 0, 100).map(|job| job.id.clone())
    }

    #[test]
    fn recording_goes_before_captions_before_words_before_pictures() {
        let mut jobs = vec![waiting(Kind::Render, 1), waiting(Kind::Transcribe, 2), waiting(Kind::Caption, 3), waiting(Kind::Record, 4)];
        for expected in ["record-4", "caption-3", "transcribe-2", "render-1"] {
            assert_eq!(next(&jobs, 4, Load::default()).as_deref(), Some(expected));
            jobs.retain(|job| job.id != expected);
        }
        assert_eq!(next(&jobs, 4, Load::default()), None);
    }

    #[test]
    fn recording_goes_on_a_full_machine_and_derived_work_waits() {
        let jobs = [waiting(Kind::Render, 1)];
        assert_eq!(next(&jobs, 1, Load { captions: 1, ..Load::default() }), None);
        assert_eq!(next(&jobs, 2, Load { captions: 1, ..Load::default() }).as_deref(), Some("render-1"));
        assert_eq!(next(&jobs, 2, Load { derived: 1, ..Load::default() }), None);
        let full = Load { records: 10, captions: 2, derived: 1, ..Load::default() };
        assert_eq!(next(&[waiting(Kind::Record, 1)], 2, full).as_deref(), Some("record-1"));
    }

    #[test]
    fn derived_work_waits_for_memory_unless_it_is_alone() {
        let fits = |memory, load, kind| Capacity { workers_max: 8, memory: Some(memory) }.fits(load, kind, || 300 << 20);
        let busy = Load { captions: 1, ..Load::default() };
        let enough = (300 << 20) + MEMORY_KEPT;
        assert!(fits(enough, busy, Kind::Transcribe) && !fits(enough - 1, busy, Kind::Transcribe));
        assert!(fits(0, Load { records: 9, publishing: 2, ..Load::default() }, Kind::Render), "or it would never be made");
        assert!(!fits(0, Load { derived: 1, ..Load::default() }, Kind::Render));
        for kind in [Kind::Record, Kind::Caption, Kind::PublishRecording] {
            assert!(fits(0, busy, kind), "{kind:?} cannot wait");
        }
    }

    #[test]
    fn job_that_waits_for_its_next_try_is_passed_over() {
        let mut early = waiting(Kind::Record, 1);
        early.run_after_ms = 101;
        assert_eq!(next(&[early, waiting(Kind::Render, 2)], 1, Load::default()).as_deref(), Some("render-2"));
    }
}
