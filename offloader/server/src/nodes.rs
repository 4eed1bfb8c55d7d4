//! The other offloaders of this site: which of them live, and who of us does what only one may do.
//!
//! All share the database and the archive; each has its own disk. A recording stays with the node that has its latest bytes
//! for as long as that one lives, so that nothing has to be brought over; a dead one's work goes to the others.

use std::path::Path;

use anyhow::Context;
use offloader_jobs::Job;
use uuid::Uuid;

use crate::app::{App, lock};
use crate::limits::{NODE_AWAY_MS, NODE_BEAT, OWNER_FIRST_MS, SETTLE_AWAY_MS};
use crate::store::nodes::{Node, node_of};

/// What all offloaders of a site must have in common.
const COMMON: [(&str, &str); 3] = [
    ("site key", "OFFLOADER_SITE_KEY_FILE: every offloader needs a copy of the same file"),
    ("signing key", "OFFLOADER_SIGNING_KEY_FILE: every offloader needs a copy of the same file"),
    ("archive", "OFFLOADER_ARCHIVE: every offloader must reach the same one, and a folder on this machine is not that"),
];

impl App {
    /// Refuses a site in which this node could not read what the others write.
    pub(crate) async fn join_site(&self) -> anyhow::Result<()> {
        if !self.store.is_shared() {
            return Ok(());
        }
        for node in self.store.nodes().await? {
            if node.name != self.node && node.silent_ms < NODE_AWAY_MS {
                check_same(&self.site, &node)?;
            }
        }
        self.beat().await
    }

    /// Says that we live, and looks who else does.
    pub(crate) async fn meet(&self) -> anyhow::Result<()> {
        let due = lock(&self.beaten).is_none_or(|at| at.elapsed() >= NODE_BEAT);
        if due && self.store.is_shared() { self.beat().await } else { Ok(()) }
    }

    async fn beat(&self) -> anyhow::Result<()> {
        self.store.note_node(&self.node, &self.site).await.context("cannot say in the database that this offloader lives")?;
        *lock(&self.peers) = self.store.nodes().await?;
        *lock(&self.beaten) = Some(std::time::Instant::now());
        Ok(())
    }

    /// The machine of that lease's owner was not heard of for so long.
    fn is_away(&self, owner: &str, for_ms: i64) -> bool {
        let node = node_of(owner);
        node != self.node && !lock(&self.peers).iter().any(|peer| peer.name == node && peer.silent_ms < for_ms)
    }

    /// Offloaders of this site that live, this one too.
    pub(crate) fn nodes_alive(&self) -> usize {
        lock(&self.peers).iter().filter(|peer| peer.silent_ms < NODE_AWAY_MS).count().max(1)
    }

    /// The latest attempt was on this machine, or there is no other.
    pub(crate) fn is_home(&self, owner: &str) -> bool {
        !self.store.is_shared() || node_of(owner) == self.node
    }

    /// Whether this node may take a waiting job now: who has the recording's bytes comes first.
    pub(crate) fn may_take(&self, job: &Job, now_ms: i64) -> bool {
        job.spec.kind.is_derived()
            || job.last_owner.is_empty()
            || self.is_home(&job.last_owner)
            || self.is_away(&job.last_owner, NODE_AWAY_MS)
            || now_ms - job.run_after_ms > OWNER_FIRST_MS
    }

    /// Whether this node deals with the job's end.
    pub(crate) fn settles(&self, job: &Job) -> bool {
        if self.is_home(&job.last_owner) {
            return true;
        }
        let orphaned = job.last_owner.is_empty() || self.is_away(&job.last_owner, SETTLE_AWAY_MS);
        // Any would do. Two that disagree for a moment are kept apart by the object store, which takes every name once.
        let first = lock(&self.peers).iter().find(|peer| peer.silent_ms < NODE_AWAY_MS).map(|peer| peer.name.clone());
        orphaned && first.as_ref() == Some(&self.node)
    }
}

fn check_same(ours: &str, node: &Node) -> anyhow::Result<()> {
    for ((ours, theirs), (what, setting)) in ours.split("; ").zip(node.site.split("; ")).zip(COMMON) {
        if ours != theirs {
            anyhow::bail!("the offloader {} works on this database with another {what}: set {setting}", node.name);
        }
    }
    Ok(())
}

/// What nodes compare: ids only, no key.
pub(crate) fn site(site_key: &str, signing_key: &str, archive: &str) -> String {
    format!("{site_key}; {signing_key}; {archive}")
}

/// The node's name in leases: made once, kept with its data.
pub(crate) fn name(data: &Path) -> anyhow::Result<String> {
    let path = data.join("node");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => make_name(&path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_name(&path),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn make_name(path: &Path) -> anyhow::Result<String> {
    let id = Uuid::new_v4().simple().to_string();
    let name = format!("offloader-{}", &id[..8]);
    std::fs::write(path, format!("{name}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_stays_with_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let first = name(dir.path()).unwrap();
        assert_eq!(name(dir.path()).unwrap(), first);
        assert_ne!(name(tempfile::tempdir().unwrap().path()).unwrap(), first);
    }

    #[test]
    fn what_differs_is_named_with_its_setting() {
        let node = |site: String| Node { name: "offloader-2".into(), site, silent_ms: 0 };
        let ours = site("a", "b", "c");
        check_same(&ours, &node(ours.clone())).unwrap();
        for (theirs, setting) in [
            (site("x", "b", "c"), "OFFLOADER_SITE_KEY_FILE"),
            (site("a", "x", "c"), "OFFLOADER_SIGNING_KEY_FILE"),
            (site("a", "b", "x"), "OFFLOADER_ARCHIVE"),
        ] {
            let error = check_same(&ours, &node(theirs)).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains("offloader-2"), "{error}");
        }
    }
}
