//! A TCP stream with timeouts: for the head of a request, and for a client that does not read its
//! response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::connection_activity::ConnectionActivity;
use super::connection_limits::ConnectionLimits;

/// The stream of a connection.
pub(super) struct TimeoutStream {
    stream: TcpStream,
    activity: Arc<ConnectionActivity>,
    bounds: ConnectionLimits,
    head: Option<HeadDeadline>,
    /// Progress of the client since it last blocked a write; `None` while it reads fast enough.
    write: Option<WriteDeadline>,
    /// Whether a write timed out, so that unsent bytes are discarded on close.
    abandons: bool,
}

/// Bytes of a response that a client must read within the time limit, unless the response ends
/// earlier.
const MIN_BYTES: usize = 64 << 10;

/// Progress of a client that reads a response, and its deadline.
struct WriteDeadline {
    bytes: usize,
    ends: Pin<Box<Sleep>>,
}

/// The deadline of the head of a request.
struct HeadDeadline {
    /// Number of earlier requests on the connection.
    before: u64,
    ends: Pin<Box<Sleep>>,
}

impl TimeoutStream {
    /// Starts the deadline of the first head.
    pub(super) fn new(
        stream: TcpStream,
        activity: Arc<ConnectionActivity>,
        bounds: ConnectionLimits,
    ) -> Self {
        let head = Some(HeadDeadline {
            before: 0,
            ends: timer(bounds.head.0),
        });
        Self {
            stream,
            activity,
            bounds,
            head,
            write: None,
            abandons: false,
        }
    }

    /// Whether the head of the current deadline has not arrived yet.
    fn waits_for_head(&self) -> bool {
        !self.activity.is_working()
            && self
                .head
                .as_ref()
                .is_some_and(|head| head.before == self.activity.requests())
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.activity.record_transfer();
            if let (Some(deadline), Ok(bytes)) = (&mut self.write, &written) {
                deadline.bytes += bytes;
            }
            self.write.take_if(|deadline| deadline.bytes >= MIN_BYTES);
            return Poll::Ready(written);
        }
        let limit = self.bounds.write.0;
        let deadline = self.write.get_or_insert_with(|| WriteDeadline {
            bytes: 0,
            ends: timer(limit),
        });
        ready!(deadline.ends.as_mut().poll(cx));
        self.abandons = true;
        Poll::Ready(Err(timed_out("the client does not read its response")))
    }
}

fn timer(span: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(span))
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            if buffer.filled().len() > filled {
                self.activity.record_transfer();
                if !self.activity.is_working() && !self.waits_for_head() {
                    let (before, ends) = (self.activity.requests(), timer(self.bounds.head.0));
                    self.head = Some(HeadDeadline { before, ends });
                }
            }
            return Poll::Ready(read);
        }
        if !self.waits_for_head() {
            return Poll::Pending;
        }
        let Some(head) = &mut self.head else {
            return Poll::Pending;
        };
        ready!(head.ends.as_mut().poll(cx));
        Poll::Ready(Err(timed_out(
            "the head of a request did not arrive in time",
        )))
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All bytes were written.
        self.write = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for TimeoutStream {
    fn drop(&mut self) {
        if self.abandons || self.write.is_some() {
            // Otherwise the system would keep the response and the connection until the client
            // reads it.
            let _ = self.stream.set_zero_linger();
        }
    }
}
