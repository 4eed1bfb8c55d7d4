//! From an address to an exit code: gets the order, keeps the lease, does the work, tells the end.

use offloader_jobs::order::WorkOrder;

use crate::job::{JobAddress, Lease, Outcome, Word};
use crate::{caption, capture, publish, render, transcribe};

/// Does one job. The answer is the process's exit code.
pub async fn run(address: JobAddress) -> anyhow::Result<u8> {
    let order = address.order().await?;
    let lease = std::sync::Arc::new(Lease::keep(address.clone())?);
    tokio::spawn(release_on_signal(lease.clone()));
    let mut word = lease.watch();
    let fenced = async {
        // The record job ends by itself in an orderly way; this is for the others, and for a disk that hangs.
        if word.wait_for(|w| *w == Word::Fenced).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    let outcome = tokio::select! {
        outcome = work(&address, order, lease.clone()) => outcome,
        () = fenced => Outcome::Fenced,
    };
    match &outcome {
        Outcome::Done(_) => tracing::info!(job = %address.id, "done"),
        Outcome::Released => tracing::info!(job = %address.id, "put down for the next worker"),
        Outcome::Failed { error, retry } => tracing::error!(job = %address.id, retry, "{error}"),
        Outcome::Blocked { error } => tracing::warn!(job = %address.id, "{error}"),
        Outcome::Expired => tracing::error!(job = %address.id, "the lease could not be renewed: check that the offloader runs"),
        Outcome::Fenced => tracing::warn!(job = %address.id, "another worker has this job"),
    }
    address.finish(&outcome).await?;
    Ok(outcome.exit_code())
}

async fn work(address: &JobAddress, order: WorkOrder, lease: std::sync::Arc<Lease>) -> Outcome {
    let blocking = |job: Box<dyn FnOnce() -> Outcome + Send>| async {
        tokio::task::spawn_blocking(job)
            .await
            .unwrap_or_else(|e| Outcome::Failed { error: format!("a bug in the worker ended the job: {e}"), retry: true })
    };
    match order {
        WorkOrder::Record(order) => capture::run(address, *order, &lease).await,
        WorkOrder::Publish(order) => publish::job::run(address, order, &lease).await,
        WorkOrder::Upload(order) => publish::bucket::run(address, order, &lease).await,
        WorkOrder::Caption(order) => caption::job::run(address, order, &lease).await,
        WorkOrder::Transcribe(order) => {
            blocking(Box::new(move || {
                lower_priority();
                transcribe::job::run(&order, &lease)
            }))
            .await
        }
        WorkOrder::Render(order) => {
            blocking(Box::new(move || {
                lower_priority();
                render::job::run(&order, &lease)
            }))
            .await
        }
    }
}

/// What is derived can wait: calls and captions on the same machine come first. On Linux this is the calling thread and those
/// that it starts.
fn lower_priority() {
    if let Err(e) = rustix::process::nice(19) {
        tracing::warn!("cannot lower the priority: {e}");
    }
}

async fn release_on_signal(lease: std::sync::Arc<Lease>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else { return };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    lease.release();
}
