//! Room on the disk for what is derived: it can be made again, and recordings on the same disk cannot.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::job::Outcome;
use crate::render::media;

/// Between two looks: a film is written with some MB a second, and what is kept free is hundreds.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The disk that a derived job writes to.
pub struct Room<'a> {
    folder: &'a Path,
    free_bytes_min: u64,
    looked: Option<Instant>,
}

impl<'a> Room<'a> {
    /// For work that writes into this folder, and leaves so much.
    pub fn new(folder: &'a Path, free_bytes_min: u64) -> Self {
        Self { folder, free_bytes_min, looked: None }
    }

    /// Why the work cannot go on.
    pub fn poll_missing(&mut self, now: Instant) -> Option<Outcome> {
        if self.looked.is_some_and(|at| now.duration_since(at) < LOOK_EVERY) {
            return None;
        }
        self.looked = Some(now);
        self.is_short().then(|| self.blocked())
    }

    /// How work ends that failed: on a full disk it is not to blame.
    pub fn failed(&self, what: &str, error: &anyhow::Error) -> Outcome {
        if error.chain().any(is_full) || self.is_short() {
            return self.blocked();
        }
        Outcome::Failed { error: format!("{what}: {error:#}"), retry: true }
    }

    fn blocked(&self) -> Outcome {
        let (place, mib) = (self.folder.display(), self.free_bytes_min >> 20);
        let error =
            format!("no room on the disk of {place}: with what is made it would have less than {mib} MiB free; it is made once there is");
        Outcome::Blocked { error }
    }

    /// What is made is encrypted into a file beside it before it goes.
    fn is_short(&self) -> bool {
        let entries = std::fs::read_dir(self.folder).into_iter().flatten().flatten();
        let made: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum();
        let needed = self.free_bytes_min.saturating_add(made);
        // Not known is no reason to stop.
        self.free_bytes_min > 0 && archive::free_bytes(self.folder).is_ok_and(|free| free < needed)
    }
}

fn is_full(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref().is_some_and(|error: &std::io::Error| error.kind() == std::io::ErrorKind::StorageFull) || media::is_disk_full(cause)
}
