//! The offloader: job API, store, supervision of worker processes, archive API.
//!
//! Bytes come from worker processes as files and calls; they go to the object store, the catalogue and,
//! through the message server, to officers. It does not decode media: what workers hand in is hashed,
//! encrypted and signed, never parsed, except a transcript, which is indexed.

pub mod access;
pub mod app;
pub mod calls_offloader;
mod copies;
pub mod egress;
pub mod finish;
pub mod grpc;
pub mod http;
pub mod keys;
pub mod limits;
pub mod logging;
mod memory;
pub mod metrics;
pub mod models;
mod news;
mod nodes;
pub mod objects;
mod serve;
pub mod settings;
pub mod settle;
mod single;
pub mod store;
mod submit;
pub mod supervisor;
pub mod tokens;
mod wake;
pub mod work;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::settings::Settings;

/// A running daemon.
pub struct Running {
    /// What it shares.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    supervisor: tokio::task::JoinHandle<()>,
    helpers: Vec<tokio::task::JoinHandle<()>>,
    stop: CancellationToken,
    closed: CancellationToken,
    _alone: single::Alone,
}

/// Opens everything and listens.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let tls = settings.calls.as_ref().and_then(|calls| calls.tls.as_ref());
    let tls = tls.map(|(certificate, key)| serve::acceptor(certificate, key)).transpose()?;
    let listener = bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let alone = single::Alone::claim(&settings).await?;
    http::clear_left_exports(&settings.data).await.context("cannot remove what an export left in OFFLOADER_DATA")?;
    let app = Arc::new(App::open(settings).await?);
    app.join_site().await?;
    *app::lock(&app.url) = workers_url(address).await;
    let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
    let server = tokio::spawn(serve::serve(listener, tls, routes(&app).await?, closed.clone()));
    let mut helpers = vec![tokio::spawn(Arc::clone(&app).keep_copies(closed.clone()))];
    if let Some(url) = &app.settings.redis {
        let client = redis::Client::open(url.as_str()).context("OFFLOADER_REDIS")?;
        let (ring, rings) = tokio::sync::mpsc::channel(limits::RINGS);
        let _ = app.ring.set(ring);
        helpers.push(tokio::spawn(wake::run(Arc::clone(&app), client, rings, closed.clone())));
    }
    let supervisor = tokio::spawn(Arc::clone(&app).supervise(stop.clone()));
    Ok(Running { app, address, server, supervisor, helpers, stop, closed, _alone: alone })
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(listen).await {
        // `:4545` is both families, and this machine has only the older.
        Err(_) if listen.ip() == std::net::Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind(SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, listen.port()))).await
        }
        bound => bound,
    };
    bound
        .with_context(|| format!("cannot listen on {listen}: set OFFLOADER_LISTEN (or api.http.listen_address) to another address or port"))
}

/// Workers are on this machine: where we listen on all addresses, this one reaches us.
async fn workers_url(address: SocketAddr) -> String {
    let v4 = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, address.port()));
    let reached = match address.ip() {
        ip if !ip.is_unspecified() => address,
        std::net::IpAddr::V4(_) => v4,
        // Both families as a rule, and then the older is there even where the newer is switched off.
        std::net::IpAddr::V6(_) => {
            match tokio::time::timeout(std::time::Duration::from_secs(1), tokio::net::TcpStream::connect(v4)).await {
                Ok(Ok(_)) => v4,
                Ok(Err(_)) | Err(_) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())),
            }
        }
    };
    format!("http://{reached}")
}

impl Running {
    /// Lets workers close what they have while the API still answers them, then ends.
    pub async fn shut_down(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.app.wake.notify_one();
        self.supervisor.await?;
        self.closed.cancel();
        // Watchers and players hold their connections for as long as they like.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.server).await;
        for helper in self.helpers {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), helper).await;
        }
        Ok(())
    }
}

async fn routes(app: &Arc<App>) -> anyhow::Result<axum::Router> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<conclave_proto::v1::jobs_server::JobsServer<grpc::JobsService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(conclave_proto::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let grpc = tonic::service::Routes::new(grpc::JobsService::server(Arc::clone(app))).add_service(health).add_service(reflection);
    let catch = tower_http::catch_panic::CatchPanicLayer::new();
    let admit = axum::middleware::from_fn_with_state(Arc::clone(app), http::admit);
    let mut routes = http::routes(Arc::clone(app)).merge(grpc.into_axum_router());
    if let Some(calls) = &app.calls {
        calls.tell_notes();
        routes = routes
            .merge(calls_offloader::routes::router(Arc::clone(app), Arc::clone(calls)))
            .fallback(mattermost_accounts::answer::not_found);
    }
    Ok(routes.layer(admit).layer(catch))
}
