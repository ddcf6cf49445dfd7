//! What checkpoints ask of a file system: few calls, so that a test can record them and end the world
//! between any two.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The calls of the writer of checkpoints.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a file of these bytes, which a crash may still take away in part or whole.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Brings the bytes of a file to the disk. Its name may still be lost.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Brings the names in a folder to the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Gives a folder another name, which nothing has.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        File::create(path)?.write_all(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}
