//! A worker: what it registered as, how busy it says it is, and which of several gets a job.

use std::collections::BTreeSet;

use livekit_protocol as lk;

use super::check::check_deployment;
use crate::limits::ROOM_TEXT_LEN_MAX;

/// A worker's connection.
pub type WorkerNumber = u64;

/// Workers of one group are interchangeable: a job goes to one of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) agent_name: String,
    pub(super) namespace: String,
    pub(super) kind: lk::JobType,
    pub(super) deployment: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: String,
    /// The key whose token it showed: signs its agents' tokens.
    pub(super) api_key: String,
    pub(super) group: Group,
    /// What its agents may do.
    pub(super) permission: lk::ParticipantPermission,
    full: bool,
    load: f32,
}

impl Worker {
    /// # Errors
    /// What is wrong with the registration.
    pub(super) fn new(id: String, api_key: String, request: lk::RegisterWorkerRequest) -> Result<Self, &'static str> {
        let kind = lk::JobType::try_from(request.r#type).map_err(|_| "unknown job type; use JT_ROOM, JT_PUBLISHER or JT_PARTICIPANT")?;
        check_deployment(&request.deployment)?;
        let namespace = request.namespace.unwrap_or_default();
        if request.agent_name.len() > ROOM_TEXT_LEN_MAX || namespace.len() > ROOM_TEXT_LEN_MAX {
            return Err("agent name or namespace exceeds limits: 256 bytes");
        }
        let group = Group { agent_name: request.agent_name, namespace, kind, deployment: request.deployment };
        let permission = request.allowed_permissions.unwrap_or(lk::ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_update_metadata: true,
            ..lk::ParticipantPermission::default()
        });
        Ok(Self { id, api_key, group, permission, full: false, load: 0.0 })
    }

    /// What it says of itself. A load that is no number is a full one.
    pub(super) fn update(&mut self, update: &lk::UpdateWorkerStatus) {
        if update.status.is_some() {
            self.full = update.status() == lk::WorkerStatus::WsFull;
        }
        self.load = if update.load.is_nan() { 1.0 } else { update.load.max(0.0) };
    }

    /// How much of a share of new jobs it gets; nothing where it is full.
    fn free(&self) -> f64 {
        if self.full { 0.0 } else { f64::from((1.0 - self.load).max(0.0)) }
    }
}

/// One of the workers of a group that were not asked yet, by chance (0 to below 1), the idle ones more often, as LiveKit's server
/// chooses.
pub(super) fn choose<'a>(
    workers: impl Iterator<Item = (&'a WorkerNumber, &'a Worker)> + Clone,
    group: &Group,
    asked: &BTreeSet<WorkerNumber>,
    chance: f64,
) -> Option<WorkerNumber> {
    let willing = workers.filter(|(number, worker)| worker.group == *group && !asked.contains(number) && worker.free() > 0.0);
    let all: f64 = willing.clone().map(|(_, worker)| worker.free()).sum();
    let mut left = chance * all;
    let mut last = None;
    for (number, worker) in willing {
        last = Some(*number);
        left -= worker.free();
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn worker(agent_name: &str, load: f32, status: Option<lk::WorkerStatus>) -> Worker {
        let request = lk::RegisterWorkerRequest { agent_name: agent_name.to_owned(), ..lk::RegisterWorkerRequest::default() };
        let mut worker = Worker::new("AW_x".to_owned(), "key".to_owned(), request).expect("a worker");
        worker.update(&lk::UpdateWorkerStatus { load, status: status.map(Into::into), ..lk::UpdateWorkerStatus::default() });
        worker
    }

    #[test]
    fn the_idle_get_more_and_the_full_and_those_asked_nothing() {
        let full = Some(lk::WorkerStatus::WsFull);
        let workers: BTreeMap<WorkerNumber, Worker> = [
            worker("", 0.75, None),
            worker("", 0.0, full),
            worker("", 0.25, None),
            worker("other", 0.0, None),
            worker("", 1.5, None),
            worker("", f32::NAN, None),
        ]
        .into_iter()
        .zip(0..)
        .map(|(worker, number)| (number, worker))
        .collect();
        let group = Group { agent_name: String::new(), namespace: String::new(), kind: lk::JobType::JtRoom, deployment: String::new() };
        let mut counts = [0; 6];
        for step in 0..100 {
            let chosen = choose(workers.iter(), &group, &BTreeSet::new(), f64::from(step) / 100.0).expect("one");
            counts[usize::try_from(chosen).expect("small")] += 1;
        }
        assert_eq!(counts, [25, 0, 75, 0, 0, 0]);
        assert_eq!(choose(workers.iter(), &group, &BTreeSet::from([2]), 0.99), Some(0));
        assert_eq!(choose(workers.iter(), &group, &BTreeSet::from([0, 2]), 0.0), None);
    }

    #[test]
    fn a_status_stays_until_another_is_said() {
        let mut worker = worker("", 0.0, Some(lk::WorkerStatus::WsFull));
        worker.update(&lk::UpdateWorkerStatus { load: 0.1, ..lk::UpdateWorkerStatus::default() });
        assert!(worker.full, "an update without a status is of the load alone");
        worker.update(&lk::UpdateWorkerStatus { status: Some(lk::WorkerStatus::WsAvailable.into()), ..lk::UpdateWorkerStatus::default() });
        assert!(!worker.full);
    }

    #[test]
    fn what_cannot_be_registered_is_said() {
        let refused = |request| Worker::new(String::new(), String::new(), request).expect_err("refused");
        assert!(refused(lk::RegisterWorkerRequest { r#type: 7, ..lk::RegisterWorkerRequest::default() }).contains("job type"));
        assert!(refused(lk::RegisterWorkerRequest { deployment: "a_b".to_owned(), ..Default::default() }).contains("deployment"));
        assert!(refused(lk::RegisterWorkerRequest { agent_name: "x".repeat(257), ..Default::default() }).contains("agent name"));
        assert!(refused(lk::RegisterWorkerRequest { namespace: Some("x".repeat(257)), ..Default::default() }).contains("namespace"));
    }
}
