//! A file or folder that is there whole or not at all.

use std::fs::{self, File};
use std::path::Path;

use super::outside;
use crate::error::EngineError;

/// Makes what shall be at `to`: `make` is given another path beside it, to write a file or a folder of files
/// at. What it leaves is brought to the disk and renamed; after an error nothing is left.
///
/// # Errors
///
/// [`EngineError::Inconsistent`] if something is at `to` already or the disk refuses, and what `make` returns.
pub(super) fn whole<T>(
    to: &Path,
    make: impl FnOnce(&Path) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let taken = |path: &Path| fs::symlink_metadata(path).is_ok();
    if taken(to) {
        let expected = "a path at which nothing is";
        let what = to.display().to_string();
        return Err(EngineError::inconsistent(what, expected, "a file or folder"));
    }
    let Some(name) = to.file_name() else {
        return Err(EngineError::inconsistent(
            to.display().to_string(),
            "a path with a name",
            "none",
        ));
    };
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| outside(folder, &error))?;
    let mut draft = name.to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = folder.join(draft);
    remove(&draft)?;
    let made = make(&draft).and_then(|made| {
        sync(&draft)?;
        fs::rename(&draft, to).map_err(|error| outside(to, &error))?;
        sync_one(folder)?;
        Ok(made)
    });
    if made.is_err() {
        // The error that counts is known already.
        let _ = remove(&draft);
    }
    made
}

fn remove(path: &Path) -> Result<(), EngineError> {
    let removed = match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.map_err(|error| outside(path, &error))
}

/// Brings a file, or a folder with the files in it, to the disk.
fn sync(path: &Path) -> Result<(), EngineError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| outside(path, &error))? {
            sync_one(&entry.map_err(|error| outside(path, &error))?.path())?;
        }
    }
    sync_one(path)
}

fn sync_one(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| outside(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_what_fails_and_nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
        };
        let fails = whole(&to, |draft| {
            fs::create_dir(draft).unwrap();
            fs::write(draft.join("x"), "y").unwrap();
            Err::<(), _>(EngineError::inconsistent("a", "b", "c"))
        });
        assert!(fails.is_err() && names().is_empty(), "{:?}", names());
        whole(&to, |draft| {
            assert!(!to.exists());
            fs::write(draft, "whole").map_err(|error| outside(draft, &error))
        })
        .unwrap();
        assert_eq!(names(), ["a"]);
        let error = whole(&to, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("expected a path at which nothing is"), "{error}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "whole");
    }
}
