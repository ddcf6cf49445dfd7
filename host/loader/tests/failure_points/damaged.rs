//! Damage that needs no code to be found, in either format.

use std::path::Path;

use jackfield_loader::symbols::Symbols;
use jackfield_loader::{Artifact, Format, seal};

use super::support::{puppet, sealed, with_manifest, with_mode};
use super::{As, Failure, failure};

/// Files that are cut off, changed, or say other things of themselves.
pub(crate) fn failures(build: &[u8]) -> Vec<Failure> {
    use As::{ApiVersion, Artifact, Seal, Syntax, Value};
    let fair = puppet(build, "fair");
    let mut all = vec![
        failure("never sealed", build.to_vec(), &[Seal], &["no seal"]),
        failure("empty", Vec::new(), &[Artifact], &["expected a shared library", "found 0 bytes"]),
        failure("a text", b"hello\n".to_vec(), &[Artifact], &["expected a shared library"]),
        failure(
            "a manifest of another API",
            sealed(with_manifest(build, "\"0.0\"", "\"7.3\"")),
            &[ApiVersion],
            &["built for plugin API 7.3, this host speaks 0.0"],
        ),
        failure(
            "a manifest without a name",
            sealed(with_manifest(build, "name = ", "#ame = ")),
            &[Value],
            &["name: expected text, found nothing"],
        ),
        failure(
            "a manifest with another key",
            sealed(with_manifest(build, "reload = ", "relaod = ")),
            &[Value],
            &["relaod: expected one of the keys", "found an unknown key"],
        ),
        failure(
            "a manifest that is no TOML",
            sealed(with_manifest(build, "kind = ", "kind ? ")),
            &[Syntax],
            &[":2: expected TOML"],
        ),
    ];
    for part in 1..64 {
        let length = fair.len() * part / 64;
        let cut = fair[..length].to_vec();
        all.push(failure(&format!("cut at {length}"), cut, &[Seal], &["no seal"]));
    }
    for length in [fair.len() - 1, fair.len() - 16, fair.len() - 48] {
        let cut = fair[..length].to_vec();
        all.push(failure(&format!("cut at {length}"), cut, &[Seal], &["no seal"]));
    }
    for part in 0..128 {
        // A stride that is no power of two meets every kind of place; the first bytes say the
        // format, the last the seal, where a flip is found otherwise.
        let place = 64 + (fair.len() - 128) * part / 128;
        let mut flipped = fair.clone();
        flipped[place] ^= 1 << (part % 8);
        all.push(failure(
            &format!("flipped at {place}"),
            flipped,
            &[Seal],
            &["not those that were"],
        ));
    }
    all
}

/// Flips bits of a file before it is sealed, so that the seal says nothing: whatever reads the
/// bytes finds out, or finds nothing wrong, and never panics.
#[allow(clippy::print_stdout, reason = "a count for people")]
pub(crate) fn is_read_under_a_seal(build: &[u8]) {
    let fair = with_mode(build, "fair");
    let path = Path::new("flipped");
    let (mut taken, mut refused) = (0, 0);
    for part in 0..2048 {
        // The first bytes hold what the rest is found by.
        let place = if part < 1024 { part } else { fair.len() * (part - 1024) / 1024 };
        let mut flipped = fair.clone();
        flipped[place] ^= 1 << (part % 8);
        let format = Format::of("fair", &fair).unwrap();
        let result = Artifact::from_bytes(path, seal::seal(format, flipped)).map(|artifact| {
            let _ = Symbols::check_entry(&artifact.file, &artifact.bytes);
        });
        match result {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(error.to_string().starts_with("flipped"), "{place}: {error}");
                refused += 1;
            }
        }
    }
    println!("flips under a seal: {taken} found fair by their bytes, {refused} refused");
    assert!(refused > 0);
}
