//! Hugging Face hub: `user/repo`, `user/repo:file.gguf` or `user/repo:Q4_K_M`, over HTTPS.
//!
//! Source: the hub's API, <https://huggingface.co/docs/hub/api>, and RFC 9110, section 14 (ranges).

mod repo;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use plugin_api::host::HttpPiece;
use plugin_api::prelude::*;
use sha2::{Digest, Sha256};

use repo::{RemoteFile, Repo, Wanted};

/// Fetches files of a repository, goes on after an interruption, and verifies them.
#[derive(Debug)]
pub struct HfHub {
    /// Address of the hub, without a slash at the end.
    endpoint: String,
}

impl Capability for HfHub {
    const NAME: &'static str = "hf-hub";

    fn from_config(config: &Config) -> Result<Self> {
        let endpoint = config.text_or("endpoint", "https://huggingface.co")?;
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned() })
    }
}

impl ModelSource for HfHub {
    fn list(&self) -> Vec<ModelEntry> {
        Vec::new()
    }

    fn resolve(&self, name: &str, _host: &Host) -> Result<Option<ModelEntry>> {
        Ok(Wanted::parse(name).map(|wanted| ModelEntry {
            name: name.to_owned(),
            description: format!("{} on the Hugging Face hub", wanted.repo),
            size_bytes: None,
        }))
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        let wanted = Wanted::parse(&entry.name).ok_or_else(|| {
            Error::malformed("model name", "user/repo or user/repo:file", &entry.name)
        })?;
        let folder = folder.join(wanted.repo);
        let mut fetch = Fetch { endpoint: &self.endpoint, folder, progress, host };
        match fetch.find_on_machine(&wanted)? {
            Some(path) => Ok(path),
            None => fetch.fetch_from_hub(&wanted),
        }
    }
}

/// One repository on its way into `folder`.
struct Fetch<'a> {
    endpoint: &'a str,
    folder: PathBuf,
    progress: &'a mut dyn FnMut(Progress<'_>),
    host: &'a Host,
}

impl Fetch<'_> {
    /// What an earlier fetch has left, if exactly one verified file is meant by the name.
    fn find_on_machine(&self, wanted: &Wanted<'_>) -> Result<Option<PathBuf>> {
        let services = self.host.services();
        let names = services.list(&self.folder)?;
        if wanted.file.is_none() && names.iter().any(|name| name == WHOLE_REPO) {
            return Ok(Some(self.folder.clone()));
        }
        let verified = names.iter().filter_map(|name| name.strip_suffix(".verified"));
        let mut fitting = verified.filter(|name| wanted.fits(name));
        let (Some(name), None) = (fitting.next(), fitting.next()) else { return Ok(None) };
        let path = self.folder.join(name);
        Ok(services.size_bytes(&path)?.is_some().then_some(path))
    }

    fn fetch_from_hub(&mut self, wanted: &Wanted<'_>) -> Result<PathBuf> {
        let url = format!("{}/api/models/{}?blobs=true", self.endpoint, wanted.repo);
        let repo = Repo::parse(wanted.repo, &self.text(&url)?)?;
        let Some(file) = repo.choose(wanted)? else {
            for file in repo.whole()? {
                self.file(&repo, file)?;
            }
            let mark = self.folder.join(WHOLE_REPO);
            self.host.services().append(&mark, repo.commit.as_bytes())?;
            return Ok(self.folder.clone());
        };
        self.file(&repo, file)
    }

    /// The text that `url` holds.
    fn text(&self, url: &str) -> Result<String> {
        let mut bytes = Vec::new();
        self.host.services().http_get(url, 0, &mut |piece| {
            match piece {
                HttpPiece::Start { status, .. } => check_status(url, status)?,
                HttpPiece::Bytes(piece) if bytes.len() < ANSWER_BYTES_MAX => {
                    bytes.extend_from_slice(piece);
                }
                HttpPiece::Bytes(_) => {
                    return Err(Error::outside(url, "answers more than a list of files"));
                }
            }
            Ok(())
        })?;
        String::from_utf8(bytes).map_err(|error| Error::malformed(url, "UTF-8", error))
    }

    /// Brings one file below the folder, verified.
    fn file(&mut self, repo: &Repo, file: &RemoteFile) -> Result<PathBuf> {
        let services = self.host.services();
        let path = self.folder.join(&file.name);
        let mark = self.folder.join(format!("{}.verified", file.name));
        if services.size_bytes(&mark)?.is_some() && services.size_bytes(&path)? == file.size_bytes {
            return Ok(path);
        }
        // Named after the commit: parts of two versions never make one file.
        let commit = repo.commit.get(..8).unwrap_or(&repo.commit);
        let part = self.folder.join(format!("{}.{commit}.part", file.name));
        let url =
            format!("{}/{}/resolve/{}/{}", self.endpoint, repo.name, repo.commit, file.url_path());
        self.download(&url, file, &part)?;
        match self.verify(&part, file) {
            Ok(found) => {
                services.rename(&part, &path)?;
                services.remove(&mark)?;
                services.append(&mark, format!("{found}\n").as_bytes())?;
                Ok(path)
            }
            Err(error) => {
                services.remove(&part)?;
                Err(error)
            }
        }
    }

    /// Completes `part`, from where it ends. Gives up after several broken connections.
    fn download(&mut self, url: &str, file: &RemoteFile, part: &Path) -> Result<()> {
        let stage = format!("downloading {}", file.name);
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            let start = self.host.services().size_bytes(part)?.unwrap_or(0);
            if file.size_bytes.is_some_and(|size| start == size) && start > 0 {
                return Ok(());
            }
            let mut answer = Answer { url, part, start, done: start, buffer: Vec::new() };
            let received = self.host.services().http_get(url, start, &mut |piece| {
                answer.take(piece, self.host)?;
                let total = file.size_bytes.filter(|&total| answer.done <= total);
                (self.progress)(Progress { stage: &stage, done: answer.done, total });
                Ok(())
            });
            answer.flush(self.host)?;
            match received {
                Ok(()) => return Ok(()),
                // The connection broke: go on where it did.
                Err(Error::Outside { what, .. }) if what != REFUSED && attempts_left > 0 => {
                    attempts_left -= 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Checks size and, where the hub knows it, SHA-256, and returns what was found.
    fn verify(&mut self, part: &Path, file: &RemoteFile) -> Result<String> {
        let services = self.host.services();
        let size = services.size_bytes(part)?.unwrap_or(0);
        let (mut from, mut hash) = (services.open(part)?, Sha256::new());
        let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
        loop {
            let read = from.read(&mut piece);
            let len = read.map_err(|error| Error::outside(part.display(), error))?;
            if len == 0 {
                break;
            }
            hash.update(&piece[..len]);
            done += len as u64;
            (self.progress)(Progress { stage: "verifying", done, total: Some(size) });
        }
        let found = hash.finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a `String` does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
        if let Some(expected) = file.size_bytes.filter(|&expected| expected != size) {
            return Err(Error::malformed(&file.name, format_args!("{expected} bytes"), size));
        }
        if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != found) {
            return Err(Error::malformed(&file.name, format_args!("SHA-256 {expected}"), found));
        }
        Ok(found)
    }
}

/// An answer on its way into a part.
struct Answer<'a> {
    url: &'a str,
    part: &'a Path,
    /// The byte that was asked for first.
    start: u64,
    /// Bytes of the part, those in `buffer` included.
    done: u64,
    buffer: Vec<u8>,
}

impl Answer<'_> {
    fn take(&mut self, piece: HttpPiece<'_>, host: &Host) -> Result<()> {
        match piece {
            HttpPiece::Start { status: 206, .. } if self.start > 0 => Ok(()),
            HttpPiece::Start { status: status @ (200 | 416), .. } if self.start > 0 => {
                // The whole file comes, or the part is longer than the file: start again.
                host.services().remove(self.part)?;
                self.done = 0;
                if status == 200 { Ok(()) } else { Err(Error::outside(self.url, "no such range")) }
            }
            HttpPiece::Start { status, .. } => check_status(self.url, status),
            HttpPiece::Bytes(bytes) => {
                self.buffer.extend_from_slice(bytes);
                self.done += bytes.len() as u64;
                if self.buffer.len() < PIECE_BYTES { Ok(()) } else { self.flush(host) }
            }
        }
    }

    fn flush(&mut self, host: &Host) -> Result<()> {
        if !self.buffer.is_empty() {
            host.services().append(self.part, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

fn check_status(url: &str, status: u16) -> Result<()> {
    let reason = match status {
        200 => return Ok(()),
        401 | 403 => "needs an account or the consent to a licence, which this source cannot give",
        404 => "there is no such repository or file",
        429 => "the hub asks to come back later",
        _ => "the hub does not answer as expected",
    };
    Err(Error::outside(REFUSED, format_args!("{url}: status {status}: {reason}")))
}

/// Starts errors that another attempt would not mend.
const REFUSED: &str = "Hugging Face hub";

/// Marks a folder that holds a whole model; it contains the commit.
const WHOLE_REPO: &str = ".complete";

const ATTEMPTS_MAX: u32 = 8;
const ANSWER_BYTES_MAX: usize = 16 << 20;
const PIECE_BYTES: usize = 1 << 20;

export_plugin!(HfHub);
