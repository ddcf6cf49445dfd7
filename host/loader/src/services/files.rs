//! Files. The paths have been checked and resolved.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use plugin_api::host::ReadSeek;
use plugin_api::{Error, Result};

use super::outside;

pub(super) fn open(path: &Path) -> Result<Box<dyn ReadSeek>> {
    let file = File::open(path).map_err(|error| failed("open", path, &error))?;
    Ok(Box::new(file))
}

pub(super) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed("list", folder, &error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| failed("list", folder, &error))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn size_bytes(path: &Path) -> Result<Option<u64>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path, &error)),
        Ok(found) if found.is_dir() => {
            let names = list(path)?;
            // A file may vanish between the two looks: it then counts nothing.
            let sizes = names.iter().map(|name| size_bytes(&path.join(name)));
            sizes.map(|size| Ok(size?.unwrap_or(0))).sum::<Result<u64>>().map(Some)
        }
        Ok(found) => Ok(Some(found.len())),
    }
}

pub(super) fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
    };
    write().map_err(|error| failed("append to", path, &error))
}

/// Renames, and only then: what has the new name is wholly on disk.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    let rename = || {
        if from.is_file() {
            File::open(from)?.sync_all()?;
        }
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    rename().map_err(|error| failed(&format!("rename {} to", from.display()), to, &error))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    let remove = || {
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    };
    match remove() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|error| failed("remove", path, &error)),
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Error {
    outside(format_args!("cannot {verb} {}", path.display()), error)
}
