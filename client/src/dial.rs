//! A WebSocket to a server of HTTP, plain or over TLS.

use std::sync::Arc;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = WebSocketStream<Box<dyn Io>>;

/// Characters of a refusal that are kept.
const WORDS_MAX: usize = 200;

/// Why there is no WebSocket.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The address cannot work.
    Address(&'static str),
    /// Nobody answers there, or nobody who is believed.
    Unreachable(String),
    /// It is no WebSocket for us.
    Refused { status: u16, message: String },
}

/// Opens it. `url` may have any of `http`, `https`, `ws` and `wss`; without `tls` the last ones of each do not work.
pub(crate) async fn open(
    mut url: Url,
    authorization: Option<HeaderValue>,
    tls: Option<&Arc<ClientConfig>>,
    message_max: usize,
) -> Result<Stream, DialError> {
    let secure = match url.scheme() {
        "https" | "wss" => true,
        "http" | "ws" => false,
        _ => return Err(DialError::Address("it is no address of a web server")),
    };
    let host = url.host_str().ok_or(DialError::Address("it has no host"))?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or(DialError::Address("it has no port"))?;
    url.set_scheme(if secure { "wss" } else { "ws" }).map_err(|()| DialError::Address("it is no address of a web server"))?;
    let unreachable = |error: &dyn std::fmt::Display| DialError::Unreachable(error.to_string());
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| unreachable(&error))?;
    tcp.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let io: Box<dyn Io> = if secure {
        let tls = tls.ok_or(DialError::Address("TLS is not set up here; give an address that begins with http or ws"))?;
        let name = ServerName::try_from(host).map_err(|_| DialError::Address("no certificate can name its host"))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
        Box::new(connector.connect(name, tcp).await.map_err(|error| unreachable(&error))?)
    } else {
        Box::new(tcp)
    };
    let mut request = url.as_str().into_client_request().map_err(|_| DialError::Address("it is no address of a web server"))?;
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    let config = WebSocketConfig::default().max_message_size(Some(message_max)).max_frame_size(Some(message_max));
    match client_async_with_config(request, io, Some(config)).await {
        Ok((stream, _)) => Ok(stream),
        Err(Error::Http(answer)) => {
            let words = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let message = words.trim().chars().take(WORDS_MAX).collect();
            Err(DialError::Refused { status: answer.status().as_u16(), message })
        }
        Err(error) => Err(unreachable(&error)),
    }
}
