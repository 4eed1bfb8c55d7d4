//! What becomes of egresses, told to webhooks; and the end of vouching when a recording takes no more media.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use conclave_proto::v1::{self, JobKind};
use livekit_protocol as lk;
use rtcd_core::ids::CallId;

use super::super::call_of;
use super::Egress;
use super::info::{Pair, is_over, pairs};
use super::offloader::OffloaderFault;
use crate::limits::EGRESS_KNOWN_MAX;
use crate::node::Node;
use crate::signal::seam::{RoomRequest, Vouched};

/// Pause before the offloader is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// An egress of this node.
struct Known {
    pair: Pair,
    /// What webhooks were told last.
    told: Option<i32>,
    /// Its room was told that it takes no more media.
    released: bool,
}

/// See the module.
pub struct Watcher {
    node: Arc<Node>,
    egress: Egress,
    /// By recording.
    known: HashMap<String, Known>,
}

impl Watcher {
    /// For a node with an offloader.
    #[must_use]
    pub fn new(node: Arc<Node>, egress: Egress) -> Self {
        Self { node, egress, known: HashMap::new() }
    }

    /// Watches until the node ends.
    pub async fn run(mut self) {
        let mut answers = true;
        loop {
            if let Err(fault) = self.follow(&mut answers).await
                && std::mem::take(&mut answers)
            {
                tracing::warn!(%fault, "the offloader does not answer: what becomes of egresses is told when it does");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(&mut self, answers: &mut bool) -> Result<(), OffloaderFault> {
        // Listening before reading: nothing falls in between.
        let mut changes = self.egress.offloader.watch().await?;
        for pair in pairs(self.egress.offloader.list().await?) {
            let Pair { record, render, publish, .. } = pair;
            for job in std::iter::once(record).chain(render).chain(publish) {
                self.observe(job).await;
            }
        }
        if !std::mem::replace(answers, true) {
            tracing::info!("the offloader answers again");
        }
        while let Some(job) = changes.message().await? {
            self.observe(job).await;
        }
        Ok(())
    }

    async fn observe(&mut self, job: v1::Job) {
        let recording = job.recording_id.clone();
        if job.kind() == JobKind::Record {
            match self.known.get_mut(&recording) {
                Some(known) => known.pair.record = job,
                None => {
                    let Some(pair) = Pair::of(job).filter(|pair| pair.order.node == self.node.id) else { return };
                    // Of an earlier life of this node: its webhooks were told of it, but not of what comes.
                    let told = (pair.record.created_at_ms < self.egress.since_ms).then(|| pair.info().status);
                    self.make_room();
                    self.known.insert(recording.clone(), Known { pair, told, released: false });
                }
            }
        } else if let Some(known) = self.known.get_mut(&recording) {
            match job.kind() {
                JobKind::Render => known.pair.render = Some(job),
                JobKind::PublishRecording => known.pair.publish = Some(job),
                JobKind::Unspecified | JobKind::Record | JobKind::Caption | JobKind::Transcribe | JobKind::PublishTranscript => {}
            }
        }
        self.tell(&recording).await;
    }

    async fn tell(&mut self, recording: &str) {
        let Some(known) = self.known.get_mut(recording) else { return };
        let info = known.pair.info();
        if known.pair.has_recorded() && !std::mem::replace(&mut known.released, true) {
            let name = info.room_name.clone();
            let call: Option<CallId> = call_of(&name);
            if let Some(call) = call {
                // The room may be gone, and a room of that name may be another one: then there is nobody to release.
                let _ =
                    self.node.ask_room(&call, &name, RoomRequest::Vouch { egress: info.egress_id.clone(), whose: Vouched::Nobody }).await;
            }
        }
        let before = known.told.replace(info.status);
        let say = |name: &str, info: &lk::EgressInfo| super::tell(&self.node, name, info.clone());
        let over = is_over(info.status());
        match before {
            None => {
                say("egress_started", &info);
                if over {
                    say("egress_ended", &info);
                }
            }
            Some(before) if before == info.status => {}
            Some(_) => say(if over { "egress_ended" } else { "egress_updated" }, &info),
        }
    }

    /// Those that are over are forgotten first, the oldest of them.
    fn make_room(&mut self) {
        if self.known.len() < EGRESS_KNOWN_MAX {
            return;
        }
        let over = self.known.iter().filter(|(_, known)| is_over(known.pair.info().status()));
        let oldest = over.min_by_key(|(_, known)| known.pair.record.created_at_ms).map(|(recording, _)| recording.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}
