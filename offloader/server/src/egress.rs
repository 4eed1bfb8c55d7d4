//! LiveKit's egress: the rendered file is copied to the folder of the settings before its job is done, or brought to a bucket by a job
//! of its own.

use std::path::{Component, Path, PathBuf};

use object_store::path::Path as ObjectPath;
use offloader_jobs::Job;
use offloader_jobs::egress::{Delivered, EgressKind, EgressOrder, S3Bucket};
use offloader_jobs::layout::LaterLayout;
use offloader_jobs::order::RecordParams;

use crate::app::App;
use crate::finish::FinishError;
use crate::store::unix_ms;

/// Layouts of one egress after each other: more than anybody looks at.
const LAYOUTS_MAX: usize = 1000;

/// What is asked of a recording, with another layout from a moment on. `None`: it is no egress of a whole room, or has had its share.
pub fn laid_out(job: &Job, later: LaterLayout) -> Option<String> {
    let mut params: RecordParams = serde_json::from_str(&job.spec.params).ok()?;
    let egress = params.egress.as_mut().filter(|egress| egress.kind == EgressKind::RoomComposite)?;
    let layouts = &mut egress.picture.later;
    // The order they were asked for in is theirs, whatever a clock does.
    let at_ms = layouts.last().map_or(later.at_ms, |before| before.at_ms.max(later.at_ms));
    if layouts.len() >= LAYOUTS_MAX {
        return None;
    }
    layouts.push(LaterLayout { at_ms, ..later });
    serde_json::to_string(&params).ok()
}

/// The egress that a job belongs to.
pub fn egress_of(job: &Job) -> Option<Box<EgressOrder>> {
    serde_json::from_str::<RecordParams>(&job.spec.params).ok()?.egress
}

/// Where a path of a request lies below the folder: nowhere else, whatever it says.
///
/// # Errors
/// What is wrong with it.
pub fn below(folder: &Path, path: &str) -> Result<PathBuf, String> {
    let mut place = folder.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => place.push(part),
            // Absolute paths of a machine of LiveKit's are paths in the folder.
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(format!("{path:?} leaves the folder for egress")),
        }
    }
    if place == folder || path.ends_with('/') || path.len() > 1024 {
        return Err(format!("{path:?} names no file of at most 1024 bytes"));
    }
    Ok(place)
}

/// A path of a request as the key of an object: absolute paths of a machine of LiveKit's are keys too.
pub fn object_key(path: &str) -> &str {
    path.trim_start_matches('/')
}

impl App {
    /// Whether what an egress wants can be done here.
    ///
    /// # Errors
    /// What to change.
    pub fn check_egress(&self, order: &EgressOrder) -> Result<(), String> {
        if let Some(bucket) = &order.s3 {
            let key = object_key(&order.path);
            if key.is_empty() || key.ends_with('/') || key.len() > 1024 || ObjectPath::parse(key).is_err() {
                return Err(format!("{:?} is no key of an object of at most 1024 bytes", order.path));
            }
            return self.check_bucket(bucket);
        }
        let folder = self.settings.egress_dir.as_deref();
        let folder = folder.ok_or("this offloader has no folder for files of egress; set OFFLOADER_EGRESS_DIR")?;
        below(folder, &order.path).map(|_| ())
    }

    /// Whether files may go there: nothing is contacted that the operator did not name.
    ///
    /// # Errors
    /// What to change.
    pub fn check_bucket(&self, bucket: &S3Bucket) -> Result<(), String> {
        let permitted = &self.settings.egress_s3;
        if permitted.contains(&bucket.endpoint) {
            return Ok(());
        }
        Err(format!("files of egress may not go to {}; its operator permits it with OFFLOADER_EGRESS_S3", bucket.endpoint))
    }

    /// Copies the file of an egress to its place. The same job again replaces it: what comes out is the same.
    pub(crate) async fn deliver(&self, job: &Job, file: &Path) -> Result<Option<Delivered>, FinishError> {
        let Some(order) = egress_of(job).filter(|order| order.s3.is_none()) else { return Ok(None) };
        self.check_egress(&order).map_err(FinishError::Result)?;
        let folder = self.settings.egress_dir.clone().unwrap_or_default();
        let place = below(&folder, &order.path).map_err(FinishError::Result)?;
        let location = place.display().to_string();
        let manifest = match &order.manifest {
            None => None,
            Some(manifest) => {
                let beside = below(&folder, &manifest.beside(&order.path)).map_err(FinishError::Result)?;
                Some((beside, manifest.clone().written(&order.path, &location, unix_ms())))
            }
        };
        let (from, id) = (file.to_owned(), job.id.clone());
        let put = move || -> std::io::Result<Delivered> {
            let bytes = in_place(&place, &folder, &id, |part| std::fs::copy(&from, part))?;
            if let Some((beside, text)) = &manifest {
                in_place(beside, &folder, &id, |part| std::fs::write(part, text))?;
            }
            let manifest = manifest.map(|(beside, _)| beside.display().to_string()).unwrap_or_default();
            Ok(Delivered { location: place.display().to_string(), bytes, manifest })
        };
        let put = tokio::task::spawn_blocking(put).await.map_err(|error| FinishError::Storage(error.to_string()))?;
        let delivered = put.map_err(|error| crate::finish::storage(&Undelivered(location, error)))?;
        tracing::info!(job = job.id, egress = order.id, bytes = delivered.bytes, "an egress's file is in its place");
        Ok(Some(delivered))
    }
}

/// A file that cannot be written where it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}: {1}")]
struct Undelivered(String, #[source] std::io::Error);

/// Writes a file under another name first: what has its own name is whole.
fn in_place<T>(place: &Path, folder: &Path, job: &str, write: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    std::fs::create_dir_all(place.parent().unwrap_or(folder))?;
    let part = place.with_extension(format!("{job}.part"));
    let written = write(&part)?;
    std::fs::File::open(&part)?.sync_all()?;
    std::fs::rename(&part, place)?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offloader_jobs::{Kind, Spec};

    #[test]
    fn layouts_follow_each_other_within_bounds_and_only_a_rooms_egress_has_any() {
        let job = |egress: Option<EgressKind>| {
            let egress = egress.map(|kind| Box::new(EgressOrder { kind, ..EgressOrder::default() }));
            let params = serde_json::to_string(&RecordParams { egress, ..RecordParams::default() }).unwrap();
            let spec = Spec {
                kind: Kind::Record,
                tenant: "t".into(),
                call_id: "c".into(),
                recording_id: "rec-1".into(),
                idempotency_key: "k".into(),
                params,
            };
            Job::new("job-1".into(), spec, 1)
        };
        let later = |at_ms, name: &str| LaterLayout { at_ms, layout: name.parse().unwrap() };
        assert_eq!(laid_out(&job(None), later(1, "grid")), None);
        assert_eq!(laid_out(&job(Some(EgressKind::Participant)), later(1, "grid")), None);
        let mut job = job(Some(EgressKind::RoomComposite));
        for (at_ms, name) in [(5, "speaker"), (3, "grid-light")] {
            job.spec.params = laid_out(&job, later(at_ms, name)).unwrap();
        }
        let layouts = egress_of(&job).unwrap().picture.later;
        assert_eq!(layouts, [later(5, "speaker"), later(5, "grid-light")], "a clock that went back changes no order");
        let mut more = 0;
        while let Some(params) = laid_out(&job, later(9, "grid")) {
            job.spec.params = params;
            more += 1;
        }
        assert_eq!(more, LAYOUTS_MAX - 2);
    }

    #[test]
    fn a_path_of_a_request_stays_in_the_folder() {
        let folder = Path::new("/srv/egress");
        for (path, place) in [("a.mp4", "/srv/egress/a.mp4"), ("/out/./b/a.mp4", "/srv/egress/out/b/a.mp4")] {
            assert_eq!(below(folder, path).unwrap(), Path::new(place));
        }
        for path in ["../a.mp4", "a/../../b.mp4", "", "/", ".", "a/", &"x".repeat(2000)] {
            assert!(below(folder, path).is_err(), "{path}");
        }
    }
}
