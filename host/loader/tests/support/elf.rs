//! Changes of shared libraries, byte by byte: what no linker would write.

use object::read::elf::{ElfFile64, FileHeader as _, SectionHeader as _, Sym as _};
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, elf};
use plugin_api::native::{Entry, SYMBOL_PREFIX};

/// Sizes and places of the format that `object` has no names for: see elf(5).
const SYMBOL_BYTES: usize = 24;

/// Where the bytes of the entry start.
pub(crate) fn entry(bytes: &[u8]) -> usize {
    let file = ElfFile64::<Endianness>::parse(bytes).expect("a library");
    let mut symbols = file.dynamic_symbols();
    let is_entry = |name: &str| name.starts_with(SYMBOL_PREFIX);
    let symbol = symbols.find(|symbol| symbol.name().is_ok_and(is_entry)).expect("an entry");
    let index = symbol.section_index().expect("a section");
    let section = file.section_by_index(index).expect("the section");
    let (start, _) = section.file_range().expect("bytes");
    (start + symbol.address() - section.address()) as usize
}

/// A copy with other bytes in a field of the entry.
pub(crate) fn with_entry(bytes: &[u8], field: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let start = entry(&bytes) + field;
    bytes[start..start + new.len()].copy_from_slice(new);
    bytes
}

/// A copy whose entry says that a panic aborts.
pub(crate) fn aborting(bytes: &[u8]) -> Vec<u8> {
    with_entry(bytes, std::mem::offset_of!(Entry, unwinds), &[0])
}

/// A copy whose entry says that it was built with other tables.
pub(crate) fn of_other_tables(bytes: &[u8]) -> Vec<u8> {
    with_entry(bytes, std::mem::offset_of!(Entry, digest), &[0xAB; 16])
}

/// A copy that is linked with `-z nodelete`.
pub(crate) fn never_unloaded(bytes: &[u8]) -> Vec<u8> {
    let file = ElfFile64::<Endianness>::parse(bytes).expect("a library");
    let section = file.section_by_name(".dynamic").expect("dynamic entries");
    let (start, size) = section.file_range().expect("bytes");
    let mut bytes = bytes.to_vec();
    let entries = bytes[start as usize..(start + size) as usize].as_chunks_mut::<16>().0;
    let tag = elf::DT_FLAGS_1.to_le_bytes();
    let flags = entries.iter_mut().find(|entry| entry[..8] == tag).expect("flags");
    flags[8] |= elf::DF_1_NODELETE as u8;
    bytes
}

/// A copy for another machine.
pub(crate) fn for_another_machine(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[18..20].copy_from_slice(&elf::EM_RISCV.to_le_bytes());
    bytes
}

/// A copy that exports what it imported from nowhere: under its own name, or as a second entry.
pub(crate) fn with_second_export(bytes: &[u8], is_entry: bool) -> Vec<u8> {
    let file = ElfFile64::<Endianness>::parse(bytes).expect("a library");
    let entry = dynamic_symbol(&file, bytes, |name, _| name.starts_with(SYMBOL_PREFIX));
    let weak = dynamic_symbol(&file, bytes, |name, is_import| is_import && name.contains("_ITM_"));
    let mut bytes = bytes.to_vec();
    let (name, rest) = (weak..weak + 4, weak + 4..weak + SYMBOL_BYTES);
    bytes.copy_within(entry + 4..entry + SYMBOL_BYTES, rest.start);
    if is_entry {
        bytes.copy_within(entry..entry + 4, name.start);
    }
    bytes
}

/// A copy whose sections have no names: nothing finds the manifest.
pub(crate) fn without_manifest(bytes: &[u8]) -> Vec<u8> {
    super::replaced(bytes, b".jackfield.manifest", b".jackfield.manifesT")
}

/// A copy whose entry has another name.
pub(crate) fn without_entry(bytes: &[u8]) -> Vec<u8> {
    super::replaced(bytes, b"plugin_entry_plugin_puppet", b"plugin_Entry_plugin_puppet")
}

/// A copy whose table has other functions than its digest says.
pub(crate) fn with_other_layout(bytes: &[u8]) -> Vec<u8> {
    super::replaced(bytes, b"apply;this,rows,out", b"amply;this,rows,out")
}

/// Where in the file the first dynamic symbol stands that `is_it` says yes to: its name, and
/// whether it is imported.
fn dynamic_symbol(file: &ElfFile64<'_>, bytes: &[u8], is_it: impl Fn(&str, bool) -> bool) -> usize {
    let endian = file.endian();
    let sections = file.elf_header().sections(endian, bytes).expect("sections");
    let table = sections.symbols(endian, bytes, elf::SHT_DYNSYM).expect("dynamic symbols");
    let section = sections.section(table.section()).expect("their section");
    let found = table.enumerate().position(|(_, symbol)| {
        let name = symbol.name(endian, table.strings()).unwrap_or_default();
        is_it(std::str::from_utf8(name).unwrap_or_default(), symbol.is_undefined(endian))
    });
    section.sh_offset(endian) as usize + SYMBOL_BYTES * found.expect("such a symbol")
}
