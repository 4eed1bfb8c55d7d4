//! The one HTTP port: gRPC services, `/metrics`, `/healthz`, `/readyz` and the routes of Mattermost's rtcd, with limits that hyper and tonic do not set by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use conclave_proto::v1::signal_server::SignalServer;
use conclave_proto::v1::tap_server::TapServer;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tower_http::compression::CompressionLayer;

use crate::config::{Config, DRAIN_WITHOUT_LIMIT};
use crate::limits::{GRPC_MESSAGE_MAX, HTTP_CONNECTIONS_MAX, HTTP2_STREAMS_MAX};
use crate::metrics;
use crate::node::Node;
use crate::signal::grpc::service::SignalService;
use crate::signal::livekit_server;
use crate::signal::mattermost;
use crate::tap::service::TapService;

/// A peer that is gone without a word is noticed after both together; its link is then resumed by a new stream.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Slow senders of headers hold a connection no longer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Open streams get this long at the end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A bound port.
pub struct Http {
    listener: tokio::net::TcpListener,
    local: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Http {
    /// Binds.
    ///
    /// # Errors
    /// Text naming the setting that moves the port.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; set api.http.listen_address (environment RTCD_API_HTTP_LISTENADDRESS) to another port or end the program that has it")
        })?;
        let local = listener.local_addr()?;
        Ok(Self { listener, local, tls: None })
    }

    /// Serves over TLS, where the settings say so.
    ///
    /// # Errors
    /// Text naming the file that cannot be used.
    pub fn with_tls_of(mut self, config: &Config) -> anyhow::Result<Self> {
        if config.http_tls {
            self.tls = Some(crate::certificate::acceptor(&config.http_tls_cert_file, &config.http_tls_cert_key)?);
        }
        Ok(self)
    }

    /// Address bound.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `stop` is done, then lets open requests end.
    pub async fn serve(self, node: Arc<Node>, stop: impl Future<Output = ()> + Send) {
        let service = TowerToHyperService::new(router(node).await);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(16 * 1024);
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors: waiting a little is all that helps.
                    tracing::warn!(%error, "accepting an HTTP connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Over the bound: closed at once, the other side tries again.
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let (builder, service, watcher, tls) = (builder.clone(), service.clone(), graceful.watcher(), self.tls.clone());
            tokio::spawn(async move {
                // The handshake takes as long as the other side wants: here it holds up nobody.
                let stream = match tls {
                    None => Box::new(stream) as Box<dyn Stream>,
                    Some(tls) => match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => Box::new(stream) as Box<dyn Stream>,
                        Ok(Err(_)) | Err(_) => return,
                    },
                };
                let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    tracing::debug!(%error, "an HTTP connection ended");
                }
                drop(place);
            });
        }
        drop(self.listener);
        let _ = tokio::time::timeout(SHUTDOWN, graceful.shutdown()).await;
    }
}

async fn router(node: Arc<Node>) -> axum::Router {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<TapServer<TapService>>().await;
    let mut drain = node.watch_drain();
    show_readiness(&health, drain.is_draining()).await;
    tokio::spawn(async move {
        while drain.changed().await {
            show_readiness(&health, drain.is_draining()).await;
        }
    });
    let mut routes = Routes::default();
    if node.auth.is_possible() {
        routes = routes.add_service(
            SignalServer::new(SignalService::new(Arc::clone(&node)))
                .max_decoding_message_size(GRPC_MESSAGE_MAX)
                // Whole reports of a node; only the bound of what others make us decode matters.
                .max_encoding_message_size(64 << 20),
        );
    } else {
        tracing::info!("signal.token is not set: message servers of our own cannot use this node, and it is drained by signal only");
    }
    if let Some(secret) = node.tap_secret.clone() {
        let taps = TapService::new(Arc::clone(&node), secret);
        routes = routes.add_service(TapServer::new(taps).max_decoding_message_size(64 * 1024));
    } else {
        tracing::info!("tap.secret is not set: there are no media taps, so nothing is recorded or captioned from this node");
    }
    routes = routes.add_service(health_service);
    match tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(conclave_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
    {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "no gRPC reflection"),
    }
    let mattermost = node.mattermost.clone();
    let router = routes
        .into_axum_router()
        .merge(
            axum::Router::new()
                .route("/metrics", any(serve_metrics).layer(CompressionLayer::new().gzip(true)))
                .route("/healthz", get(serve_health))
                .route("/readyz", get(serve_ready))
                .with_state(Arc::clone(&node)),
        )
        .merge(livekit_server::router(&node));
    match mattermost {
        Some(mattermost) => router.merge(mattermost::routes::router(node, mattermost)).fallback(mattermost::routes::not_found),
        None => router,
    }
}

/// Signalling takes new work or not; taps and the process itself go on serving during a drain.
async fn show_readiness(health: &tonic_health::server::HealthReporter, draining: bool) {
    if draining {
        health.set_not_serving::<SignalServer<SignalService>>().await;
    } else {
        health.set_serving::<SignalServer<SignalService>>().await;
    }
}

async fn serve_metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&node).await)
}

/// About this process alone: a lost database or message server must not make an orchestrator kill running calls.
async fn serve_health(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match (node.is_healthy(), node.drain_left().is_some()) {
        (true, false) => (StatusCode::OK, "ok\n"),
        (true, true) => (StatusCode::OK, "draining\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "a media thread is stuck; restart this process\n"),
    }
}

/// Whether new work may be sent here.
async fn serve_ready(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match (node.is_healthy(), node.drain_left()) {
        (true, None) => (StatusCode::OK, "ready\n".to_owned()),
        (true, Some(left)) => {
            let present = node.directory.present() + node.mattermost.as_ref().map_or(0, |mattermost| mattermost.sessions.count());
            let end = if left > DRAIN_WITHOUT_LIMIT / 2 {
                "ends with the last of them".to_owned()
            } else {
                format!("ends in {} s at the latest; `conclave drain --cancel` takes it back", left.as_secs())
            };
            let text = format!("draining: {present} participants left, {end}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "a media thread is stuck; restart this process\n".to_owned()),
    }
}
