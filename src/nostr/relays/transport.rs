//! The socket: a websocket with narrow bounds, and a dead peer noticed by the kernel.
//!
//! Called by the pool to connect. Why not the pool's own: that one buffers messages of 64 MiB and writes each one it
//! refuses to the log, waits for lost peers up to 110 s, and delays small messages (Nagle). What must stay true: of
//! one relay at most [`FRAME_BYTES`] are buffered, and nothing longer than [`MESSAGE_BYTES`] gets further.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::nostr::util::BoxedFuture;
use ::nostr::{RelayUrl, Url};
use async_wsocket::message::CloseFrame;
use async_wsocket::{ConnectionMode, Message};
use futures_util::stream::SplitSink;
use futures_util::{Sink, SinkExt, StreamExt};
use nostr_sdk::pool::transport::error::TransportError;
use nostr_sdk::pool::transport::websocket::{WebSocketSink, WebSocketStream, WebSocketTransport};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, client_async_tls_with_config};

use super::refused::Unjudged;
use super::{Said, Watcher};
use crate::nostr::wire::event::MAX_EVENT_BYTES;

/// An event and the words around it.
pub const MESSAGE_BYTES: usize = MAX_EVENT_BYTES + 5_120;
/// Longer messages end the connection; those between the two bounds are passed over, because anybody can have a
/// generous relay send them.
const FRAME_BYTES: usize = 1024 * 1024;

/// A peer that is silent for so long is asked by the kernel whether it lives.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
/// And again after this.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// So many times.
const KEEPALIVE_PROBES: u32 = 3;
/// What was sent must be confirmed by the peer's kernel within this, in milliseconds.
const UNCONFIRMED_MS: u32 = 20_000;

/// Connects to relays.
pub(super) struct Transport {
    /// Hears of messages that were passed over, and of events that the pool refused.
    pub watcher: Arc<dyn Watcher>,
    /// Notes the events before the pool gets them.
    pub unjudged: Arc<Unjudged>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl WebSocketTransport for Transport {
    fn support_ping(&self) -> bool {
        true
    }

    fn connect<'a>(
        &'a self,
        url: &'a Url,
        _mode: &'a ConnectionMode,
        timeout: Duration,
    ) -> BoxedFuture<'a, Result<(WebSocketSink, WebSocketStream), TransportError>> {
        Box::pin(async move {
            let late = |_| TransportError::backend(io::Error::from(io::ErrorKind::TimedOut));
            let socket = tokio::time::timeout(timeout, open(url)).await.map_err(late)??;
            let (sink, stream) = socket.split();
            let (watcher, unjudged, url) = (self.watcher.clone(), self.unjudged.clone(), url.clone());
            let relay = named(&url);
            let stream = stream.filter_map(move |message| {
                let message = match message {
                    Ok(message) => kept(message).map(Ok),
                    Err(error) => Some(Err(TransportError::backend(error))),
                };
                if let (None, Some(relay)) = (&message, &relay) {
                    watcher.relay_said(relay, Said::TooLong);
                }
                if let Some(Ok(Message::Text(text))) = &message
                    && let Some(reason) = unjudged.next(&url, text)
                {
                    watcher.event_refused(reason);
                }
                std::future::ready(message)
            });
            Ok((
                Box::new(Writer(sink)) as WebSocketSink,
                Box::pin(stream) as WebSocketStream,
            ))
        })
    }
}

/// The relay as the configuration spells it: the pool adds a slash to an address without a path.
fn named(url: &Url) -> Option<RelayUrl> {
    let text = url.as_str();
    RelayUrl::parse(if url.path() == "/" {
        text.trim_end_matches('/')
    } else {
        text
    })
    .ok()
}

type Socket = tokio_tungstenite::WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(url: &Url) -> Result<Socket, TransportError> {
    let missing = |what: &str| TransportError::backend(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
    let host = url
        .host_str()
        .ok_or_else(|| missing("the relay's address has no host"))?;
    let port = url
        .port_or_known_default()
        .ok_or_else(|| missing("the relay's address has no port"))?;
    // The brackets of an IPv6 address are the URL's, not the resolver's.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(TransportError::backend)?;
    watch_over(&tcp).map_err(TransportError::backend)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES));
    // Boxed because the future is large.
    let upgrade = Box::pin(client_async_tls_with_config(url.as_str(), tcp, Some(config), None));
    let (socket, _) = upgrade.await.map_err(TransportError::backend)?;
    Ok(socket)
}

/// Small messages leave at once, and a peer that is gone is noticed within half a minute.
fn watch_over(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(tcp, UNCONFIRMED_MS)?;
    Ok(())
}

/// The message in the pool's type; `None` when it is too long.
fn kept(message: tungstenite::Message) -> Option<Message> {
    use tungstenite::Message as Raw;
    if message.len() > MESSAGE_BYTES {
        return None;
    }
    match message {
        Raw::Text(text) => Some(Message::Text(text.to_string())),
        Raw::Binary(data) => Some(Message::Binary(data.to_vec())),
        Raw::Ping(data) => Some(Message::Ping(data.to_vec())),
        Raw::Pong(data) => Some(Message::Pong(data.to_vec())),
        Raw::Close(frame) => Some(Message::Close(frame.map(|frame| CloseFrame {
            code: frame.code.into(),
            reason: frame.reason.to_string(),
        }))),
        // Never comes out of a reader.
        Raw::Frame(_) => None,
    }
}

/// The writing half. `sink_map_err` would do the same, but it panics when it is used after an error.
struct Writer(SplitSink<Socket, tungstenite::Message>);

impl Sink<Message> for Writer {
    type Error = TransportError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready_unpin(cx).map_err(TransportError::backend)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Self::Error> {
        self.0.start_send_unpin(message.into()).map_err(TransportError::backend)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_flush_unpin(cx).map_err(TransportError::backend)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_close_unpin(cx).map_err(TransportError::backend)
    }
}
