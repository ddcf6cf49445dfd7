//! What can be said of a shared library without opening it.

use object::elf::{
    DF_1_NODELETE, DF_STATIC_TLS, DT_FLAGS, DT_FLAGS_1, Dyn64, ET_DYN, FileHeader64,
};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _};
use plugin_api::native::{Entry, SYMBOL_PREFIX};

use crate::artifact::{ELF_SECTION, artifact};
use crate::error::LoadError;
use crate::symbols::Symbols;

/// The manifest of a shared library.
///
/// # Errors
///
/// [`LoadError::Artifact`] for bytes that are no shared library with a manifest.
pub(crate) fn manifest(file: &str, bytes: &[u8]) -> Result<String, LoadError> {
    let elf = open(file, bytes)?;
    let section = elf.section_by_name(ELF_SECTION);
    let section = section.ok_or_else(|| {
        artifact(file, "a manifest, as `export_plugin!` embeds it", "a library without one")
    })?;
    let text = section.data().map_err(|e| artifact(file, "a readable manifest", e))?;
    let text = std::str::from_utf8(text).map_err(|e| artifact(file, "a manifest in UTF-8", e))?;
    Ok(text.to_owned())
}

/// The one symbol that the plugin exports for the host.
///
/// # Errors
///
/// [`LoadError::Artifact`] for libraries of another machine, with another number of entries, or
/// that this host cannot contain.
pub(crate) fn entry_symbol(file: &str, bytes: &[u8]) -> Result<String, LoadError> {
    let elf = open(file, bytes)?;
    let exported = || {
        elf.dynamic_symbols().filter(|s| s.is_definition() && s.is_global()).filter_map(|s| {
            let name = s.name().ok()?;
            Some((name, s.size()))
        })
    };
    let entries: Vec<_> = exported().filter(|(name, _)| name.starts_with(SYMBOL_PREFIX)).collect();
    let [(name, size)] = entries[..] else {
        let names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
        let found = format!("{} [{}]", entries.len(), names.join(", "));
        return Err(artifact(file, "one exported symbol `plugin_entry_…`", found));
    };
    if size < size_of::<Entry>() as u64 {
        let expected = format!("an entry of {} bytes", size_of::<Entry>());
        return Err(artifact(file, &expected, size));
    }
    if let Some((other, _)) = exported().find(|(other, _)| *other != name) {
        let expected = format!(
            "`{name}` as its only exported symbol (`jackfield plugin build` hides those of libraries below it)"
        );
        return Err(artifact(file, &expected, format!("`{other}` as well")));
    }
    Ok(name.to_owned())
}

pub(crate) fn open<'a>(file: &str, bytes: &'a [u8]) -> Result<ElfFile64<'a>, LoadError> {
    let library = "a 64-bit shared library for this machine";
    let not = |found: &dyn ToString| artifact(file, library, found.to_string());
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|e| not(&e))?;
    let header: &FileHeader64<Endianness> = elf.elf_header();
    let endian = elf.endian();
    if endian != Endianness::Little || header.e_type.get(endian) != ET_DYN {
        return Err(not(&"another kind of file"));
    }
    if elf.architecture() != HERE {
        return Err(not(&format!("one for {:?}", elf.architecture())));
    }
    let segments = header.program_headers(endian, bytes).map_err(|e| not(&e))?;
    for segment in segments {
        let end = segment.p_offset(endian).checked_add(segment.p_filesz(endian));
        if end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(artifact(file, "all of its segments", "a file that ends before they do"));
        }
        let entries = segment.dynamic(endian, bytes).map_err(|e| not(&e))?.unwrap_or_default();
        if value(entries, endian, DT_FLAGS) & u64::from(DF_STATIC_TLS) != 0 {
            let found = "static thread-local storage, of which a process has little";
            return Err(artifact(file, "thread-local storage that can be added later", found));
        }
    }
    Ok(elf)
}

/// Why a shared library could not be unmapped without harm, if so.
///
/// # Errors
///
/// [`LoadError::Artifact`] for bytes that are no shared library for this machine.
pub(crate) fn pinned(file: &str, bytes: &[u8]) -> Result<Option<String>, LoadError> {
    let elf = open(file, bytes)?;
    let endian = elf.endian();
    for segment in elf.elf_program_headers() {
        let entries = segment.dynamic(endian, bytes);
        let entries = entries.map_err(|e| artifact(file, "dynamic entries", e))?;
        let flags = value(entries.unwrap_or_default(), endian, DT_FLAGS_1);
        if flags & u64::from(DF_1_NODELETE) != 0 {
            return Ok(Some("it is linked never to be unloaded".to_owned()));
        }
    }
    let symbols = Symbols::read(file, bytes)?;
    if let Some(name) = symbols.unique.first() {
        return Ok(Some(format!("the linker keeps one `{name}` for the whole process")));
    }
    let left = symbols.imported.iter().find(|name| LEAVES_SOMETHING.contains(&name.as_str()));
    Ok(left.map(|name| format!("it imports `{name}`, which may leave something of it behind")))
}

/// What starts threads of its own, hands the system code to call later, or finds functions that do.
const LEAVES_SOMETHING: [&str; 13] = [
    "atexit",
    "clone",
    "dlopen",
    "dlsym",
    "on_exit",
    "pthread_atfork",
    "pthread_create",
    "sigaction",
    "signal",
    "thrd_create",
    "timer_create",
    "tss_create",
    "vfork",
];

/// The number that an entry of the dynamic section has; 0 if there is none.
fn value(entries: &[Dyn64<Endianness>], endian: Endianness, tag: i64) -> u64 {
    let entry = entries.iter().find(|entry| entry.tag(endian) == tag);
    entry.map_or(0, |entry| entry.val(endian))
}

#[cfg(target_arch = "x86_64")]
const HERE: object::Architecture = object::Architecture::X86_64;
#[cfg(target_arch = "aarch64")]
const HERE: object::Architecture = object::Architecture::Aarch64;
