//! Compiled components on disk.
//!
//! Compiling takes a hundred times longer than loading what was compiled. But a compiled file is
//! machine code that runs with all rights of this process: nothing in it is checked when it is
//! loaded. So only files are loaded that this host wrote and that nobody has changed since. The
//! folder belongs to this user alone (0700), and every file (0600) begins with a keyed hash of its
//! name and contents; the key lies beside it. Whoever can read the key can already run code as
//! this user. Everything else (a file that is cut short, has a flipped bit, was copied from
//! another machine or planted from outside) fails the hash and is compiled again.

#![allow(unsafe_code, reason = "loads compiled code")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// A folder of compiled components that can be trusted.
pub(super) struct Cache {
    folder: PathBuf,
    key: [u8; HASH_BYTES],
}

impl Cache {
    /// The cache in `folder`, made if needed.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made, or belongs to or is open to somebody else.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let found = fs::symlink_metadata(folder)?;
        let is_mine = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
        if !is_mine {
            return Err(io::Error::other("expected a folder of this user"));
        }
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { folder: folder.to_owned(), key: key(&folder.join("key"))? })
    }

    /// The component that was compiled from the bytes with this hash, if it is there and ours.
    pub(super) fn load(&self, engine: &Engine, hash: &str) -> Option<Component> {
        let name = name_of(engine, hash)?;
        let bytes = fs::read(self.folder.join(&name)).ok()?;
        let (code_hash, code) = bytes.split_at_checked(HASH_BYTES)?;
        if !is_equal(code_hash, &self.keyed_hash(&name, code)) {
            return None;
        }
        // SAFETY: these very bytes were made by `Component::serialize` in `store`: nothing else
        // knows the key. That they fit this version of wasmtime, its settings and this processor
        // is part of their name, and is checked again by `deserialize`.
        unsafe { Component::deserialize(engine, code) }.ok()
    }

    /// Keeps what was compiled from the bytes with this hash.
    ///
    /// # Errors
    ///
    /// What the operating system says; there is then no file, or the one that was there.
    pub(super) fn store(
        &self,
        engine: &Engine,
        hash: &str,
        component: &Component,
    ) -> io::Result<()> {
        let Some(name) = name_of(engine, hash) else { return Ok(()) };
        let code = component.serialize().map_err(io::Error::other)?;
        let part = self.folder.join(format!("{name}.part-{}-{}", std::process::id(), unique()));
        let written = write_new(&part, &[&self.keyed_hash(&name, &code), &code])
            .and_then(|()| fs::rename(&part, self.folder.join(&name)))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }

    /// HMAC-SHA256 (RFC 2104) over the name and the code.
    fn keyed_hash(&self, name: &str, code: &[u8]) -> [u8; HASH_BYTES] {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(&self.key).for_each(|(place, key)| *place ^= key);
            block
        };
        let inner = Sha256::new()
            .chain_update(pad(0x36))
            .chain_update(name.as_bytes())
            .chain_update([0])
            .chain_update(code)
            .finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// `<hash of the component>-<hash of wasmtime's version and settings, and of the processor>.cwasm`;
/// nothing for a hash that is none.
fn name_of(engine: &Engine, hash: &str) -> Option<String> {
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut settings = Fnv(0xcbf2_9ce4_8422_2325);
    engine.precompile_compatibility_hash().hash(&mut settings);
    is_hash.then(|| format!("{hash}-{:016x}.cwasm", settings.finish()))
}

/// A hash that stays the same from one build of this host to the next.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The key in the file at `path`, made if it is not there or not whole.
fn key(path: &Path) -> io::Result<[u8; HASH_BYTES]> {
    if let Ok(Ok(key)) = fs::read(path).map(<[u8; HASH_BYTES]>::try_from) {
        return Ok(key);
    }
    let mut key = [0; HASH_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let part = path.with_extension(format!("part-{}-{}", std::process::id(), unique()));
    write_new(&part, &[&key])?;
    fs::rename(&part, path)?;
    Ok(key)
}

fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const HASH_BYTES: usize = 32;
