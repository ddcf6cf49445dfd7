//! The resident chunks in the order in which they leave.

/// A list through an array: chunks from the one that stays longest to the next that leaves.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// For each chunk the one before it and after it; the last entry is the ring's beginning.
    ring: Vec<(u32, u32)>,
    chunks: Vec<Chunk>,
    len: usize,
    /// Chunks with this number are pinned.
    pin: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Chunk {
    is_resident: bool,
    was_fetched: bool,
    pin: u64,
}

impl Order {
    pub(crate) fn new(num_chunks: usize) -> Self {
        let own = num_chunks as u32;
        let chunks = vec![Chunk::default(); num_chunks];
        Self { ring: vec![(own, own); num_chunks + 1], chunks, len: 0, pin: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn has(&self, chunk: u32) -> bool {
        self.chunks[chunk as usize].is_resident
    }

    pub(crate) fn set_fetched(&mut self, chunk: u32) {
        self.chunks[chunk as usize].was_fetched = true;
    }

    /// Whether a chunk was fetched and not used since; it is used now.
    pub(crate) fn take_fetched(&mut self, chunk: u32) -> bool {
        std::mem::take(&mut self.chunks[chunk as usize].was_fetched)
    }

    /// These chunks stay, and none of those that were pinned before has to.
    pub(crate) fn pin(&mut self, chunks: &[u32]) {
        self.pin += 1;
        self.pin_more(chunks);
    }

    /// These stay, too.
    pub(crate) fn pin_more(&mut self, chunks: &[u32]) {
        for &chunk in chunks {
            self.chunks[chunk as usize].pin = self.pin;
        }
    }

    /// The next one to leave that is not pinned.
    pub(crate) fn last_free(&self) -> Option<u32> {
        let own = self.chunks.len();
        let mut at = self.ring[own].0;
        while at as usize != own {
            if self.chunks[at as usize].pin != self.pin {
                return Some(at);
            }
            at = self.ring[at as usize].0;
        }
        None
    }

    /// Lets a chunk in, to stay longest or to leave next.
    pub(crate) fn insert(&mut self, chunk: u32, is_first: bool) {
        let own = self.chunks.len() as u32;
        let (before, after) = if is_first {
            (own, self.ring[own as usize].1)
        } else {
            (self.ring[own as usize].0, own)
        };
        self.ring[chunk as usize] = (before, after);
        self.ring[before as usize].1 = chunk;
        self.ring[after as usize].0 = chunk;
        self.chunks[chunk as usize].is_resident = true;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, chunk: u32) {
        let (before, after) = self.ring[chunk as usize];
        self.ring[before as usize].1 = after;
        self.ring[after as usize].0 = before;
        let of = &mut self.chunks[chunk as usize];
        (of.is_resident, of.was_fetched) = (false, false);
        self.len -= 1;
    }

    /// Moves a resident chunk to one of the ends.
    pub(crate) fn move_to(&mut self, chunk: u32, is_first: bool) {
        self.remove(chunk);
        self.insert(chunk, is_first);
    }
}
