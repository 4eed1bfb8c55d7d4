//! The embedded message server: people, channels, calls, consent, captions fan-out, and the way of LiveKit's signalling
//! to the media node. It routes no media.
//!
//! Requests come in through [`web::router`], who may do what is decided in [`rights`], everything that must survive a
//! restart lies in [`store`], the media node is reached over [`link`], recorder and captions over [`jobs`].

pub mod app;
pub mod calls;
pub mod channels;
pub mod clock;
pub mod error;
pub mod events;
pub mod ids;
pub mod jobs;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod people;
pub mod relay;
pub mod rights;
pub mod settings;
pub mod store;
pub mod web;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use app::App;
use link::LinkEvent;
use settings::Settings;

/// What runs beside the requests.
pub fn spawn_background(app: &Arc<App>, events: mpsc::Receiver<LinkEvent>) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(Arc::clone(&app.link).run());
    tasks.spawn(call_events(Arc::clone(app), events));
    tasks.spawn(events::announcer::Announcer::run(Arc::clone(app)));
    tasks.spawn(calls::reconcile::Reconciler::run(Arc::clone(app)));
    if let Some(jobs) = app.jobs.clone() {
        tasks.spawn(jobs.watch(Arc::clone(app)));
    }
    tasks
}

/// Stores what happens in calls, in order.
async fn call_events(app: Arc<App>, mut events: mpsc::Receiver<LinkEvent>) {
    let mut lost = 0;
    while let Some(event) = events.recv().await {
        let resync = match event {
            LinkEvent::Call(event) => {
                calls::presence::handle(&app, *event).await;
                let now_lost = app.link.counters.events_lost.load(std::sync::atomic::Ordering::Relaxed);
                let overflowed = now_lost != lost && events.is_empty();
                if overflowed {
                    lost = now_lost;
                }
                overflowed
            }
            LinkEvent::Resync => true,
        };
        if resync && let Err(error) = calls::presence::resync(&app).await {
            tracing::warn!(error = error.message(), "the media node's list of calls could not be compared");
        }
    }
}

/// Runs the server until `stop`.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tracing::info!(settings = settings.summary(), "settings");
    let http = web::listen::bind(settings.listen, "MESSAGE_SERVER_LISTEN")?;
    let https = settings.tls_address().map(|address| web::listen::bind(address, "MESSAGE_SERVER_TLS_LISTEN")).transpose()?;
    let (app, events) = App::open(settings).await?;
    channels::ensure_first(&app.store).await.map_err(|error| anyhow::anyhow!("{}", error.message().to_owned()))?;
    let address = if app.settings.public_url.is_empty() {
        local_address(http.local_addr()?)
    } else {
        app.settings.public_url.trim_end_matches('/').to_owned()
    };
    if let Some(link) = people::setup::offer(&app.store, &app.settings.data, &address).await? {
        announce_first_login(&link);
    }
    let mut tasks = spawn_background(&app, events);
    let router = web::router::router(Arc::clone(&app));
    let (http_handle, https_handle) = (axum_server::Handle::new(), axum_server::Handle::new());
    let mut servers = tokio::task::JoinSet::new();
    tracing::info!(address = %http.local_addr()?, "listening for HTTP");
    servers.spawn(web::listen::serve(router.clone(), http, None, http_handle.clone()));
    if let Some(https) = https {
        let tls = web::listen::tls(&app.settings).await?;
        tracing::info!(address = %https.local_addr()?, "listening for HTTPS");
        servers.spawn(web::listen::serve(router, https, Some(tls), https_handle.clone()));
    }
    let failed = tokio::select! {
        () = stop => None,
        ended = servers.join_next() => ended,
    };
    tracing::info!("stopping");
    // Sockets first, so that pages and clients come back to the next process at once; then what is in flight.
    app.hub.close_all();
    app.relay.stop();
    http_handle.graceful_shutdown(Some(Duration::from_secs(5)));
    https_handle.graceful_shutdown(Some(Duration::from_secs(5)));
    while servers.join_next().await.is_some() {}
    tasks.shutdown().await;
    app.store.close().await;
    match failed {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
        None => Ok(()),
    }
}

/// What a browser on this machine opens: localhost is a secure context there, an address may not be.
fn local_address(address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("http://localhost:{}", address.port())
    } else {
        format!("http://{address}")
    }
}

/// On standard output, as one line of its own: whoever started the server has to see it.
#[allow(clippy::print_stdout, reason = "the one line that people have to see whatever the log goes to")]
fn announce_first_login(link: &str) {
    println!("First sign-in (works once, for 24 hours): {link}");
}
