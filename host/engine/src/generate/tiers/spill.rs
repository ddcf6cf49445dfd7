//! Chunks of a pool in files: appended to segments as records with a checksum, read back from where
//! they lie. Whatever lies in no record any more is dropped with its segment.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::{Error, Host, Result};

/// Where the newest record of a chunk lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    segment: u64,
    offset: u64,
}

/// A file of records.
#[derive(Debug)]
struct Segment {
    id: u64,
    bytes: u64,
    records: u32,
    /// Records that are the newest of their chunk.
    live: u32,
}

/// The files of one engine.
pub(super) struct Spill {
    host: Host,
    folder: PathBuf,
    /// Distinguishes these files from those of other engines.
    name: String,
    /// The newest record of each chunk.
    places: Vec<Option<Place>>,
    /// The last one is appended to.
    segments: VecDeque<Segment>,
    num_segments: u64,
    record: Vec<u8>,
}

/// Records of a segment: small enough that little is read again when one is emptied.
const SEGMENT_RECORDS: u32 = 256;
/// What a record begins with.
const MAGIC: u32 = 0x7C11_5EED;
/// Magic, chunk, length, nothing, checksum.
const HEADER_BYTES: usize = 24;

impl Spill {
    pub(super) fn new(host: Host, folder: &Path, num_chunks: usize) -> Self {
        static ENGINES: AtomicU64 = AtomicU64::new(0);
        let engine = ENGINES.fetch_add(1, Ordering::Relaxed);
        let name = format!("pool-{}-{engine}", std::process::id());
        Self {
            host,
            folder: folder.to_owned(),
            name,
            places: vec![None; num_chunks],
            segments: VecDeque::new(),
            num_segments: 0,
            record: Vec::new(),
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Where a chunk lies, with the file.
    pub(super) fn find(&self, chunk: u32) -> Option<(PathBuf, Place)> {
        let place = self.places.get(chunk as usize)?.clone()?;
        Some((self.path(place.segment), place))
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.folder.join(format!("{}-{segment}.kv", self.name))
    }

    /// Writes a chunk, whose record before becomes void. Nothing has changed if it fails.
    pub(super) fn write(&mut self, chunk: u32, bytes: &[u8]) -> Result<()> {
        self.append(chunk, bytes)?;
        self.compact(bytes.len())
    }

    fn append(&mut self, chunk: u32, bytes: &[u8]) -> Result<()> {
        if self.segments.back().is_none_or(|segment| segment.records >= SEGMENT_RECORDS) {
            self.begin_segment();
        }
        put_record(chunk, bytes, &mut self.record);
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        let place = Place { segment: segment.id, offset: segment.bytes };
        let path = self.folder.join(format!("{}-{}.kv", self.name, segment.id));
        if let Err(error) = self.host.services().append(&path, &self.record) {
            // Part of a record may stand there: whatever follows goes elsewhere.
            segment.records = SEGMENT_RECORDS;
            self.drop_empty();
            return Err(error);
        }
        segment.bytes += self.record.len() as u64;
        segment.records += 1;
        segment.live += 1;
        self.forget(chunk);
        self.places[chunk as usize] = Some(place);
        Ok(())
    }

    /// A chunk that could not be read, and those that are gone with it: what lay in files that are
    /// missing or too short, and what of its own file cannot be read either.
    pub(super) fn lost_with(&self, chunk: u32, chunk_bytes: usize) -> Vec<u32> {
        let own = self.places[chunk as usize].as_ref().map(|place| place.segment);
        let mut bytes = vec![0; chunk_bytes];
        let mut lost = vec![chunk];
        for segment in &self.segments {
            let path = self.path(segment.id);
            let size = self.host.services().size_bytes(&path).ok().flatten().unwrap_or(0);
            for (other, place) in (0..).zip(&self.places) {
                let Some(place) = place.as_ref().filter(|place| place.segment == segment.id) else {
                    continue;
                };
                let is_short = size < place.offset + (HEADER_BYTES + chunk_bytes) as u64;
                let is_damaged = own == Some(segment.id)
                    && read(&self.host, &path, place, other, &mut bytes).is_err();
                if (is_short || is_damaged) && other != chunk {
                    lost.push(other);
                }
            }
        }
        lost
    }

    fn begin_segment(&mut self) {
        let id = self.num_segments;
        self.num_segments += 1;
        self.segments.push_back(Segment { id, bytes: 0, records: 0, live: 0 });
    }

    /// A chunk has no record any more.
    pub(super) fn forget(&mut self, chunk: u32) {
        let Some(place) = self.places[chunk as usize].take() else { return };
        if let Some(segment) = self.segments.iter_mut().find(|s| s.id == place.segment) {
            segment.live -= 1;
        }
        self.drop_empty();
    }

    /// Removes segments without a live record, but the one that is appended to.
    fn drop_empty(&mut self) {
        for index in (0..self.segments.len().saturating_sub(1)).rev() {
            if self.segments[index].live == 0
                && let Some(segment) = self.segments.remove(index)
            {
                // A file that cannot be removed costs room and nothing else.
                let _ = self.host.services().remove(&self.path(segment.id));
            }
        }
    }

    /// Moves what is live of the oldest segment while more than half of all records are void.
    fn compact(&mut self, chunk_bytes: usize) -> Result<()> {
        let (records, live) = self.segments.iter().fold((0, 0), |(records, live), segment| {
            (records + segment.records, live + segment.live)
        });
        if self.segments.len() < 3 || records < 2 * live + SEGMENT_RECORDS {
            return Ok(());
        }
        let oldest = self.segments[0].id;
        let chunks = (0..self.places.len() as u32).filter(|chunk| {
            self.places[*chunk as usize].as_ref().is_some_and(|place| place.segment == oldest)
        });
        let mut bytes = vec![0; chunk_bytes];
        for chunk in chunks.collect::<Vec<_>>() {
            let Some((path, place)) = self.find(chunk) else { continue };
            // One that cannot be read stays where it is: whoever needs it is told.
            if read(&self.host, &path, &place, chunk, &mut bytes).is_ok() {
                self.append(chunk, &bytes)?;
            }
        }
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        for segment in &self.segments {
            let _ = self.host.services().remove(&self.path(segment.id));
        }
    }
}

fn put_record(chunk: u32, bytes: &[u8], record: &mut Vec<u8>) {
    record.clear();
    for word in [MAGIC, chunk, bytes.len() as u32, 0] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    record.extend_from_slice(&checksum(bytes).to_le_bytes());
    record.extend_from_slice(bytes);
}

/// Reads a chunk from where it lies. `out` is of any content if it fails.
pub(super) fn read(
    host: &Host,
    path: &Path,
    place: &Place,
    chunk: u32,
    out: &mut [u8],
) -> Result<()> {
    let what = || format!("{}: chunk {chunk}", path.display());
    let failed = |error: std::io::Error| Error::outside(what(), error);
    let mut file = host.services().open(path)?;
    file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(failed)?;
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
    let found = [word(0), word(4), word(8)];
    let expected = [MAGIC, chunk, out.len() as u32];
    if found != expected {
        let (expected, found) = (format!("{expected:x?}"), format!("{found:x?}"));
        return Err(Error::malformed(what(), format!("a record {expected}"), found));
    }
    file.read_exact(out).map_err(failed)?;
    let (sum, own) = (checksum(out).to_le_bytes(), &header[16..]);
    if sum != own {
        return Err(Error::malformed(what(), format!("checksum {own:x?}"), format!("{sum:x?}")));
    }
    Ok(())
}

/// Eight bytes at a time: tells a damaged record from a whole one, and is no digest.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix =
        |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let sum =
        words.iter().fold(bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}
