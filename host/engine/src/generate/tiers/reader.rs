//! A thread that reads chunks ahead.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use plugin_api::Host;

use super::spill::{Place, read};

/// Something to read.
struct Ask {
    ticket: u64,
    chunk: u32,
    path: PathBuf,
    place: Place,
    room: Vec<u8>,
}

/// Reads what it is asked for in order; ends when nobody asks any more.
pub(super) struct Reader {
    asks: Option<Sender<Ask>>,
    done: Receiver<(u64, Option<Vec<u8>>)>,
    /// What came before it was taken.
    here: HashMap<u64, Option<Vec<u8>>>,
    /// Buffers that nobody uses.
    spare: Vec<Vec<u8>>,
    chunk_bytes: usize,
    next: u64,
    /// Tickets up to here have been read.
    seen: u64,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(super) fn new(host: Host, chunk_bytes: usize) -> Self {
        let (asks, asked) = channel::<Ask>();
        let (finish, done) = channel();
        let work = move || {
            for Ask { ticket, chunk, path, place, mut room } in asked {
                let result = read(&host, &path, &place, chunk, &mut room);
                if finish.send((ticket, result.ok().map(|()| room))).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("tiers".to_owned()).spawn(work).ok();
        let asks = thread.is_some().then_some(asks);
        let here = HashMap::new();
        Self { asks, done, here, spare: Vec::new(), chunk_bytes, next: 0, seen: 0, thread }
    }

    /// Has a chunk read; [`take`](Self::take) gives it for the ticket that is returned.
    pub(super) fn ask(&mut self, chunk: u32, path: PathBuf, place: Place) -> u64 {
        self.next += 1;
        let ticket = self.next;
        let room = self.spare.pop().unwrap_or_else(|| vec![0; self.chunk_bytes]);
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask { ticket, chunk, path, place, room });
        }
        ticket
    }

    /// Waits for a chunk and copies it; whether it could be read. What was asked for earlier and
    /// never taken is dropped.
    pub(super) fn take(&mut self, ticket: u64, out: &mut [u8]) -> bool {
        while self.asks.is_some() && self.seen < ticket {
            let Ok((found, bytes)) = self.done.recv() else { break };
            self.seen = found;
            self.here.insert(found, bytes);
        }
        let bytes = self.here.remove(&ticket).flatten();
        let is_here = bytes.as_ref().is_some_and(|bytes| bytes.len() == out.len());
        if let Some(bytes) = bytes.filter(|_| is_here) {
            out.copy_from_slice(&bytes);
            self.spare.push(bytes);
        }
        if self.here.len() > HERE_MAX {
            let old = self.seen.saturating_sub(HERE_MAX as u64);
            self.here.retain(|ticket, _| *ticket > old);
        }
        is_here
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.asks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Chunks that may wait without being taken.
const HERE_MAX: usize = 64;
