//! Random interleavings of everything that can happen to a job, against what must always hold.

#![cfg(test)]

use offloader_jobs::limits::{ATTEMPTS_MAX, BLOCKED_MS_MAX, LEASE_MS, PUBLISHING_MAX, failures_max};
use offloader_jobs::{Capacity, Job, Kind, Load, Outcome, Refused, Spec, State, choose};
use proptest::prelude::*;

const WORKERS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Lease(usize),
    Renew(usize),
    Checkpoint(usize),
    Finish(usize, u8),
    /// The supervisor saw the worker's process end.
    Exit(usize),
    /// The worker is gone and nobody saw it.
    Vanish(usize),
    Sweep,
    Stop,
    /// Time passes; sometimes the store's clock is set back.
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        4 => worker.clone().prop_map(Step::Lease),
        4 => worker.clone().prop_map(Step::Renew),
        2 => worker.clone().prop_map(Step::Checkpoint),
        2 => (worker.clone(), 0u8..5).prop_map(|(worker, how)| Step::Finish(worker, how)),
        2 => worker.clone().prop_map(Step::Exit),
        1 => worker.prop_map(Step::Vanish),
        4 => Just(Step::Sweep),
        1 => Just(Step::Stop),
        5 => (-2_000i64..15_000).prop_map(Step::Pass),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn job(kind: Kind) -> Job {
    let spec =
        Spec { kind, tenant: "t".into(), call_id: "c".into(), recording_id: "r".into(), idempotency_key: "k".into(), params: "{}".into() };
    Job::new("job".into(), spec, 0)
}

/// What an observer knows without looking into the job.
struct Model {
    /// The fence each worker believes it holds.
    held: [Option<u64>; WORKERS],
    latest: u64,
    owner: Option<usize>,
    stopped: bool,
    ended: Option<Job>,
}

impl Model {
    /// A worker wrote with its fence: only the latest lease's owner may have been heard.
    fn check_write<T>(&self, worker: usize, fence: u64, result: &Result<T, Refused>) -> Result<(), TestCaseError> {
        if result.is_ok() {
            prop_assert_eq!(fence, self.latest, "a stale fence was accepted");
            prop_assert_eq!(self.owner, Some(worker), "somebody else's lease was used");
            prop_assert!(self.ended.is_none(), "an ended job was written");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_keeps_the_rules(kind in kind(), steps in prop::collection::vec((step(), any::<u32>()), 1..120)) {
        let mut job = job(kind);
        let mut model = Model { held: [None; WORKERS], latest: 0, owner: None, stopped: false, ended: None };
        let mut now = 0i64;
        for (step, random) in steps {
            let before = job.clone();
            match step {
                Step::Lease(worker) => {
                    if job.lease(&format!("w{worker}"), now).is_ok() {
                        prop_assert_eq!(before.state, State::Queued, "two owners at a time");
                        prop_assert!(!model.stopped, "leased again after a stop");
                        prop_assert!(job.fence > model.latest, "the fence did not grow");
                        model.latest = job.fence;
                        model.held[worker] = Some(job.fence);
                        model.owner = Some(worker);
                    }
                }
                Step::Renew(worker) => if let Some(fence) = model.held[worker] {
                    let result = job.renew(fence, 0.5, "", now);
                    model.check_write(worker, fence, &result)?;
                    if let Ok(stop) = result {
                        prop_assert_eq!(stop, model.stopped, "a stop was not told, or invented");
                        prop_assert!(job.lease.as_ref().unwrap().until_ms >= now + LEASE_MS);
                    }
                },
                Step::Checkpoint(worker) => if let Some(fence) = model.held[worker] {
                    let result = job.note_checkpoint(fence, "{}", now);
                    model.check_write(worker, fence, &result)?;
                },
                Step::Finish(worker, how) => if let Some(fence) = model.held[worker] {
                    let outcome = match how {
                        0 => Outcome::Done { result: "{}".into() },
                        1 => Outcome::Released,
                        2 => Outcome::Failed { error: "x".into(), retry: true },
                        3 => Outcome::Blocked { error: "no room".into() },
                        _ => Outcome::Failed { error: "x".into(), retry: false },
                    };
                    let result = job.finish(fence, outcome, now, random);
                    model.check_write(worker, fence, &result)?;
                    if result.is_ok() {
                        prop_assert!(!job.state.is_leased());
                        model.owner = None;
                    }
                },
                Step::Exit(worker) => if let Some(fence) = model.held[worker].take() {
                    let result = job.exited(fence, "signal 9", now, random);
                    model.check_write(worker, fence, &result)?;
                    if result.is_ok() {
                        model.owner = None;
                    }
                },
                Step::Vanish(worker) => model.held[worker] = None,
                Step::Sweep => if job.expire(now, random).is_ok() {
                    prop_assert!(before.lease.as_ref().unwrap().until_ms <= now, "a live lease was taken away");
                    model.owner = None;
                },
                Step::Stop => {
                    job.stop("asked", now);
                    model.stopped |= before.state != State::Done && before.state != State::Failed;
                    prop_assert_ne!(job.state, State::Queued);
                    prop_assert_ne!(job.state, State::Running);
                }
                Step::Pass(ms) => now += ms,
            }
            prop_assert!(job.fence >= before.fence);
            prop_assert!(job.failures <= failures_max(kind));
            prop_assert!(job.attempt <= ATTEMPTS_MAX);
            prop_assert_eq!(job.lease.is_some(), job.state.is_leased());
            prop_assert!(job.lease.as_ref().is_none_or(|lease| lease.owner == job.last_owner));
            if model.stopped {
                prop_assert!(job.state == State::Stopping || job.state.is_final(), "a stop was lost: {:?}", job.state);
            }
            if let Some(ended) = &model.ended {
                prop_assert_eq!(&job, ended, "an ended job changed");
            } else if job.state.is_final() {
                model.ended = Some(job.clone());
            }
        }
        // From any state: if workers only ever die, the job ends after a bounded number of attempts.
        let mut tries = 0;
        while !job.state.is_final() {
            now = now.max(job.run_after_ms) + LEASE_MS * 2;
            let _ = job.lease("w", now);
            now += LEASE_MS;
            job.expire(now, 7).unwrap();
            tries += 1;
            prop_assert!(tries <= failures_max(kind), "never ends");
        }
    }

    /// Whatever its attempts live for, work that does not ride on a call ends after its tries from the last place that it got to.
    #[test]
    fn who_comes_no_further_is_given_up_after_its_tries(
        kind in prop::sample::select(vec![Kind::Render, Kind::Transcribe, Kind::PublishRecording, Kind::PublishTranscript]),
        lives in prop::collection::vec((0i64..7_200_000, 0u8..3), 1..60),
    ) {
        let mut job = job(kind);
        // What a watcher counts: failures since the place at the end of an attempt was last another one.
        let (mut now, mut place, mut failed_here) = (0, String::new(), 0);
        for (life_ms, steps) in lives {
            if job.lease("w", now).is_err() {
                break;
            }
            let last = job.is_last_try();
            let mut reached = place.clone();
            for step in 0..steps {
                // There and back, or further.
                reached = if step == 0 { "asking".to_owned() } else { format!("{place}+") };
                job.note_checkpoint(job.fence, &reached, now).unwrap();
            }
            now += life_ms;
            job.renew(job.fence, 0.7, "", now).unwrap();
            job.exited(job.fence, "signal 11", now, 1).unwrap();
            failed_here = if reached == place { failed_here + 1 } else { 1 };
            prop_assert_eq!(job.failures, failed_here);
            prop_assert_eq!(job.state == State::Failed, failed_here == failures_max(kind));
            prop_assert!(last || job.state == State::Queued, "its worker knows when nobody comes after it");
            (place, now) = (reached, now.max(job.run_after_ms));
        }
    }

    #[test]
    fn worker_that_only_gives_back_is_not_asked_forever(kind in kind()) {
        let mut job = job(kind);
        let mut leases = 0;
        while job.lease("w", 0).is_ok() {
            job.finish(job.fence, Outcome::Released, 0, 0).unwrap();
            leases += 1;
        }
        prop_assert_eq!(leases, ATTEMPTS_MAX);
        prop_assert_eq!(job.state, State::Failed);
        prop_assert_eq!(job.error, "given up after 100 attempts: each machine that had it gave it back");
    }
}

#[test]
fn poison_job_is_given_up_after_its_tries_and_says_why() {
    let mut job = job(Kind::Render);
    let mut now = 0;
    let mut last_tries = Vec::new();
    while job.lease("w", now).is_ok() {
        last_tries.push(job.is_last_try());
        job.exited(job.fence, "signal 11", now, 1).unwrap();
        now = job.run_after_ms;
    }
    assert_eq!((job.state, job.attempt), (State::Failed, 3));
    assert!(job.error.contains("signal 11"), "{}", job.error);
    assert_eq!(last_tries, [false, false, true], "its worker knows when nobody comes after it");
}

#[test]
fn work_that_fails_at_the_end_of_an_hour_is_given_up_after_its_tries_and_says_why() {
    for kind in [Kind::Render, Kind::Transcribe] {
        let mut job = job(kind);
        let mut now = 0;
        let mut last_tries = Vec::new();
        while job.lease("w", now).is_ok() {
            last_tries.push(job.is_last_try());
            now += 3_600_000;
            job.renew(job.fence, 0.99, "", now).unwrap();
            job.finish(job.fence, Outcome::Failed { error: "a bad frame".into(), retry: true }, now, 1).unwrap();
            now = job.run_after_ms;
        }
        assert_eq!((job.state, last_tries), (State::Failed, vec![false, false, true]), "{kind:?}");
        assert_eq!(job.error, "given up after 3 attempts, the last 3 without getting on: a bad frame");
    }
}

#[test]
fn attempts_that_were_given_back_take_no_try_away() {
    let mut job = job(Kind::Transcribe);
    for _ in 0..10 {
        job.lease("w", 0).unwrap();
        assert!(!job.is_last_try(), "attempt {}", job.attempt);
        job.finish(job.fence, Outcome::Released, 0, 0).unwrap();
    }
    let mut now = 0;
    for last in [false, false, true] {
        job.lease("w", now).unwrap();
        assert_eq!(job.is_last_try(), last);
        job.exited(job.fence, "signal 9", now, 1).unwrap();
        now = job.run_after_ms;
    }
    assert_eq!((job.state, job.attempt), (State::Failed, 13));
}

#[test]
fn publication_that_gets_on_each_time_goes_on_and_one_that_stands_still_does_not() {
    let mut job = job(Kind::PublishRecording);
    let mut now = 0;
    let mut fail = |job: &mut Job, places: &[&str]| {
        job.lease("w", now).unwrap();
        places.iter().for_each(|place| job.note_checkpoint(job.fence, place, now).unwrap());
        job.exited(job.fence, "signal 9", now, 1).unwrap();
        now = job.run_after_ms;
    };
    for n in 0..30 {
        fail(&mut job, &[&format!("piece {n}")]);
    }
    assert_eq!((job.state, job.failures), (State::Queued, 1));
    // It asks, is told no, and stands where it stood.
    for _ in 1..failures_max(Kind::PublishRecording) {
        assert_eq!(job.state, State::Queued);
        fail(&mut job, &["asking", "piece 29"]);
    }
    assert_eq!((job.state, job.attempt), (State::Failed, 41));
    assert!(job.error.contains("the last 12 without getting on"), "{}", job.error);
}

#[test]
fn long_recording_survives_more_deaths_than_its_tries_if_it_worked_in_between() {
    let mut job = job(Kind::Record);
    let mut now = 0;
    for _ in 0..50 {
        job.lease("w", now).unwrap();
        now += 61_000;
        job.renew(job.fence, 0.0, "", now).unwrap();
        job.exited(job.fence, "signal 9", now, 1).unwrap();
        now = job.run_after_ms;
    }
    assert_eq!((job.state, job.failures), (State::Queued, 1));
}

#[test]
fn recording_that_finds_no_room_waits_for_as_long_as_it_takes() {
    let mut job = job(Kind::Record);
    let mut now = 0;
    for _ in 0..10 * ATTEMPTS_MAX {
        job.lease("w", now).unwrap();
        job.finish(job.fence, Outcome::Blocked { error: "the disk is full".into() }, now, 1).unwrap();
        assert_eq!((job.state, job.attempt, job.failures), (State::Queued, 0, 0));
        assert_eq!(job.error, "the disk is full");
        now = job.run_after_ms;
    }
    job.stop("enough", now);
    assert_eq!(job.state, State::Done);
}

/// A machine whose publications go to a server that is gone: each worker waits for a minute and gives its job back.
struct GoneServer {
    jobs: Vec<Job>,
    /// Until when each of those at work waits.
    at_work: Vec<(usize, i64)>,
    chosen: u32,
}

impl GoneServer {
    const PATIENCE_MS: i64 = 60_000;

    fn second(&mut self, now: i64) {
        for (n, _) in self.at_work.extract_if(.., |(_, until)| *until <= now) {
            let fence = self.jobs[n].fence;
            self.jobs[n].finish(fence, Outcome::Blocked { error: "the server is away".into() }, now, 1).unwrap();
        }
        loop {
            let load = Load { publishing: self.at_work.len(), ..Load::default() };
            let capacity = Capacity { workers_max: 2, memory: None };
            let Some(id) = choose(&self.jobs, &Kind::ALL, capacity, load, |_| 0, now).map(|job| job.id.clone()) else { return };
            let n = self.jobs.iter().position(|job| job.id == id).unwrap();
            self.jobs[n].lease("w", now).unwrap();
            self.at_work.push((n, now + Self::PATIENCE_MS));
            self.chosen += 1;
        }
    }
}

#[test]
fn publications_that_nobody_takes_keep_no_place_from_one_that_could_be_made() {
    let named = |n: i64, now| Job { id: format!("job-{n}"), ..Job::new(String::new(), job(Kind::PublishRecording).spec, now) };
    let jobs = (0..20).map(|n| named(n, 0)).collect();
    let mut server = GoneServer { jobs, at_work: Vec::new(), chosen: 0 };
    // In the first minutes, where those before it had no turn yet, and after hours.
    for (new, begins, rounds) in [(100, 1_000, 2), (101, 200_000, 1), (102, 7_200_000, 1)] {
        for now in (server.at_work.iter().map(|(_, until)| until - GoneServer::PATIENCE_MS).max().unwrap_or(0)..begins).step_by(1_000) {
            server.second(now);
        }
        server.jobs.push(named(new, begins));
        let n = server.jobs.len() - 1;
        let mut now = begins;
        while server.jobs[n].state == State::Queued {
            server.second(now);
            assert!(now - begins <= rounds * GoneServer::PATIENCE_MS, "job-{new} waits for servers that it does not go to");
            now += 1_000;
        }
    }
    // A day of it is little work, and each is asked for again.
    server.chosen = 0;
    for now in (7_400_000..7_400_000 + 86_400_000).step_by(1_000) {
        server.second(now);
    }
    let tries = 86_400_000 / (BLOCKED_MS_MAX + GoneServer::PATIENCE_MS);
    assert!((20 * tries..24 * tries).contains(&i64::from(server.chosen)), "{}", server.chosen);
    assert!(server.at_work.len() < PUBLISHING_MAX);
    assert!(server.jobs.iter().all(|job| job.failures == 0 && !job.state.is_final()));
}

#[test]
fn done_recording_asks_for_words_and_for_one_file_once() {
    let mut job = job(Kind::Record);
    assert!(job.follow_ups().is_empty());
    job.lease("w", 0).unwrap();
    job.finish(1, Outcome::Done { result: "{}".into() }, 1, 0).unwrap();
    let keys: Vec<_> = job.follow_ups().into_iter().map(|spec| spec.idempotency_key).collect();
    assert_eq!(keys, ["transcribe:r", "render:r"]);
}

#[test]
fn finishing_twice_changes_nothing() {
    let mut job = job(Kind::Record);
    job.lease("w", 0).unwrap();
    job.finish(1, Outcome::Done { result: "{}".into() }, 1, 0).unwrap();
    let ended = job.clone();
    assert_eq!(job.finish(1, Outcome::Released, 2, 0), Err(Refused::Ended));
    assert_eq!(job, ended);
}
