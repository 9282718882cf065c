//! A way to the server that lets requests pass once enough of them stand before it together.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than the requests of any run take that are on their way at all.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Gate {
    pub port: u16,
    queue: Arc<Queue>,
}

struct Queue {
    /// Requests that have come, of those that are held back; beyond all numbers once patience has
    /// ended.
    arrived: Mutex<usize>,
    changed: Condvar,
    wanted: usize,
    held_back: fn(&str) -> bool,
}

impl Gate {
    /// To the server at `port`: so many requests of those that `held_back` chooses by their first
    /// lines must come together.
    pub fn to(port: u16, wanted: usize, held_back: fn(&str) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = listener.local_addr().unwrap().port();
        let queue = Arc::new(Queue {
            arrived: Mutex::default(),
            changed: Condvar::new(),
            wanted,
            held_back,
        });
        let shared = Arc::clone(&queue);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (queue, server) = (
                    Arc::clone(&shared),
                    TcpStream::connect(("127.0.0.1", port)).unwrap(),
                );
                let (mut answers, mut back) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || queue.pass(client, server));
                thread::spawn(move || std::io::copy(&mut answers, &mut back));
            }
        });
        Self { port: gate, queue }
    }

    /// Whether as many came together as were wanted, rather than passed for want of patience.
    pub fn was_met(&self) -> bool {
        *self.queue.arrived.lock().unwrap() == self.queue.wanted
    }
}

impl Queue {
    /// Hands on what a client sends; its requests have no bodies.
    fn pass(&self, mut client: TcpStream, mut server: TcpStream) {
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
        if *arrived >= self.wanted {
            return;
        }
        *arrived += 1;
        self.changed.notify_all();
        let (mut arrived, waited) = self
            .changed
            .wait_timeout_while(arrived, PATIENCE, |arrived| *arrived < self.wanted)
            .unwrap();
        if waited.timed_out() {
            *arrived = usize::MAX;
            self.changed.notify_all();
        }
    }
}
