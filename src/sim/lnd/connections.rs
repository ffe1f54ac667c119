//! TCP connections that can be cut from outside, and the loop that accepts them.
//!
//! Called by [`super::serve`] and the faults. Must stay true: a cut connection is dead for both sides at once,
//! whatever tonic still has to say on it; while down, the port refuses connections.
//! Source: the sheet on crates: tonic itself waits for streams to end.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::transport::server::Connected;

use super::engine::Engine;

/// Names a connection; found in a request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId(u64);

/// The open connections.
pub(super) struct Connections {
    open: Mutex<Open>,
    /// Whether the port is open.
    listening: watch::Sender<bool>,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            listening: watch::Sender::new(true),
        }
    }
}

#[derive(Default)]
struct Open {
    next: u64,
    refusing: bool,
    sockets: HashMap<u64, std::net::TcpStream>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every connection but `keep`, and refuses new ones if told so.
    pub fn cut(&self, keep: Option<ConnectionId>, refuse: bool) {
        let mut open = self.lock();
        open.refusing = refuse;
        for (id, socket) in &open.sockets {
            if keep != Some(ConnectionId(*id)) {
                _ = socket.shutdown(Shutdown::Both);
            }
        }
        drop(open);
        self.listening.send_replace(!refuse);
    }

    /// Cuts one connection.
    pub fn cut_one(&self, id: ConnectionId) {
        if let Some(socket) = self.lock().sockets.get(&id.0) {
            _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Accepts again.
    pub fn listen(&self) {
        self.lock().refusing = false;
        self.listening.send_replace(true);
    }

    /// `None` while refusing.
    fn register(&self, stream: TcpStream) -> io::Result<Option<(u64, TcpStream)>> {
        _ = stream.set_nodelay(true);
        let socket = stream.into_std()?;
        let second = socket.try_clone()?;
        let mut open = self.lock();
        if open.refusing {
            return Ok(None);
        }
        open.next += 1;
        let id = open.next;
        open.sockets.insert(id, second);
        drop(open);
        Ok(Some((id, TcpStream::from_std(socket)?)))
    }
}

/// One accepted connection, as tonic gets it.
pub(super) struct Connection {
    id: u64,
    stream: TcpStream,
    engine: Arc<Engine>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.engine.connections.lock().sockets.remove(&self.id);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        ConnectionId(self.id)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts connections for ever, closing the port while the node is down.
pub(super) async fn accept(
    engine: Arc<Engine>,
    first: TcpListener,
    address: SocketAddr,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let mut listening = engine.connections.listening.subscribe();
    let mut first = Some(first);
    loop {
        if listening.wait_for(|on| *on).await.is_err() {
            return;
        }
        let listener = match first.take() {
            Some(listener) => listener,
            None => bind(address).await,
        };
        loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                _ = listening.wait_for(|on| !*on) => break,
            };
            match stream.and_then(|(stream, _)| engine.connections.register(stream)) {
                Ok(Some((id, stream))) => {
                    let connection = Connection {
                        id,
                        stream,
                        engine: engine.clone(),
                    };
                    if accepted.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(err) => {
                    tracing::warn!(%err, "simulated LND: accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Opens the port again. Someone else may have it for a moment.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(err) => tracing::warn!(%err, %address, "simulated LND: bind"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
