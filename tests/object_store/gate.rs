//! A proxy that holds chosen requests back until a given number of them wait concurrently.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Timeout of a held request, which is longer than a run needs to send concurrent requests.
const HOLD_TIMEOUT: Duration = Duration::from_secs(20);

pub struct Gate {
    pub port: u16,
    queue: Arc<Queue>,
}

struct Queue {
    /// The number of held requests that have arrived; the maximum value after a timeout.
    arrived: Mutex<usize>,
    changed: Condvar,
    expected: usize,
    held_back: fn(&str) -> bool,
}

impl Gate {
    /// A proxy to the server at `port`: requests whose first lines satisfy `held_back` wait until
    /// `expected` of them have arrived.
    pub fn to(port: u16, expected: usize, held_back: fn(&str) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = listener.local_addr().unwrap().port();
        let queue = Arc::new(Queue {
            arrived: Mutex::default(),
            changed: Condvar::new(),
            expected,
            held_back,
        });
        let shared = Arc::clone(&queue);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (forwarder, server) = (
                    Arc::clone(&shared),
                    TcpStream::connect(("127.0.0.1", port)).unwrap(),
                );
                let (mut responses, mut back) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || forwarder.forward(client, server));
                thread::spawn(move || std::io::copy(&mut responses, &mut back));
            }
        });
        Self { port: gate, queue }
    }

    /// Whether the expected number of requests arrived concurrently, without a timeout.
    pub fn was_reached(&self) -> bool {
        *self.queue.arrived.lock().unwrap() == self.queue.expected
    }
}

impl Queue {
    /// Forwards the requests of a client, which have no bodies.
    fn forward(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut bytes = vec![0; 1 << 16];
        while let Some(length) = client.read(&mut bytes).ok().filter(|&length| length > 0) {
            let head = String::from_utf8_lossy(&bytes[..length]);
            if head.lines().next().is_some_and(self.held_back) {
                self.wait();
            }
            if server.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
    }

    fn wait(&self) {
        let mut arrived = self.arrived.lock().unwrap();
        if *arrived >= self.expected {
            return;
        }
        *arrived += 1;
        self.changed.notify_all();
        let (mut arrived, waited) = self
            .changed
            .wait_timeout_while(arrived, HOLD_TIMEOUT, |arrived| *arrived < self.expected)
            .unwrap();
        if waited.timed_out() {
            *arrived = usize::MAX;
            self.changed.notify_all();
        }
    }
}
