//! `jackfield plugin build`: from a plugin's folder to one sealed file.
//!
//! Cargo builds Rust here; what builds other languages stands in `components`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use jackfield_loader::artifact::{Artifact, Format, manifest_text};
use jackfield_loader::{PluginManifest, seal};
use serde_json::{Value, json};

use super::{components, say, templates};
use crate::args::{Build, BuildLane};

/// A plugin file that was written.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where it lies.
    pub path: PathBuf,
    /// What stands in it, as the loader read it back.
    pub artifact: Artifact,
}

/// Builds the plugin in `folder` for `lane` and returns the path of the sealed file: `out`, or
/// `plugins/<name>.so` or `.wasm` in the target folder.
///
/// # Errors
///
/// What is missing and how to get it; what the compiler says goes to standard error. Whatever lay
/// at the path before is still there then.
pub fn build_plugin(folder: &Path, lane: BuildLane, out: Option<&Path>) -> Result<PathBuf> {
    Ok(build(folder, Some(lane), out)?.path)
}

/// Runs the command.
pub(super) fn run(args: &Build, is_json: bool) -> Result<()> {
    let Built { path, artifact } = build(&args.folder, args.lane, args.out.as_deref())?;
    let (shown, size) = (path.display(), artifact.bytes.len());
    let (capability, lane) = (artifact.manifest.capability(), artifact.format.lane());
    if is_json {
        let line = json!({
            "file": path, "capability": capability, "lane": lane.to_string(),
            "size_bytes": size, "sha256": artifact.hash,
        });
        return say(&line.to_string());
    }
    say(&format!(
        "{shown}\n  provides  {capability}, lane {lane}\n  size      {size} bytes\n  \
         sha256    {}\nnext\n  jackfield plugin check {shown}\n  jackfield plugin swap {shown}    \
         into a host that runs; or name it in jackfield.toml:\n  [load]\n  files = [{:?}]",
        artifact.hash,
        path.display().to_string(),
    ))
}

fn build(folder: &Path, lane: Option<BuildLane>, out: Option<&Path>) -> Result<Built> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("{}: expected the folder of a plugin", folder.display()))?;
    let file = folder.join("plugin.toml");
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!("{}: expected a manifest: `jackfield plugin new` writes one", file.display())
    })?;
    let manifest = PluginManifest::parse(&file.display().to_string(), &text)?;
    let source = Source::of(&folder)?;
    let lane = lane.unwrap_or(match source {
        Source::Cargo => BuildLane::Native,
        _ => BuildLane::Wasm,
    });
    if lane == BuildLane::Wasm && !templates::WASM.contains(&manifest.kind.as_str()) {
        bail!("{}: {}", file.display(), templates::no_wasm(&manifest.kind));
    }
    let made = match (source, lane) {
        (Source::Cargo, _) => cargo(&folder, lane)?,
        (_, BuildLane::Native) => {
            bail!(
                "{}: only Rust runs in the lane native: build it with `--lane wasm`",
                file.display()
            )
        }
        (Source::C, _) => components::c(&folder, &manifest)?,
        (Source::Python, _) => components::python(&folder, &manifest)?,
        (Source::JavaScript, _) => components::javascript(&folder, &manifest)?,
    };
    let ending = if lane == BuildLane::Native { "so" } else { "wasm" };
    let usual = || made.target.join("plugins").join(format!("{}.{ending}", manifest.name));
    let path = out.map_or_else(usual, Path::to_owned);
    let artifact = finish(&path, made.bytes, Some(&text))?;
    if artifact.manifest != manifest {
        bail!(
            "{}: the file says `{}`, the manifest beside the source `{}`: is another plugin.toml \
             built in?",
            path.display(),
            artifact.manifest.capability(),
            manifest.capability()
        );
    }
    Ok(Built { path, artifact })
}

/// Adds what a plugin file needs beyond what compilers write, and puts it at `path` at once.
pub(super) fn finish(path: &Path, bytes: Vec<u8>, manifest: Option<&str>) -> Result<Artifact> {
    let file = path.display().to_string();
    let format = Format::of(&file, &bytes)?;
    let bytes = match (manifest_text(&file, format, &bytes), manifest) {
        (Ok(_), _) => bytes,
        (Err(_), Some(text)) if format == Format::Wasm => seal::with_manifest(bytes, text),
        (Err(error), _) => return Err(error.into()),
    };
    let artifact = Artifact::from_bytes(path, seal::seal(format, bytes))?;
    write_at_once(path, &artifact.bytes).with_context(|| format!("{file}: cannot be written"))?;
    Ok(artifact)
}

/// Whoever opens `path` finds the old file or the new one, whole.
fn write_at_once(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::write(&draft, bytes).and_then(|()| std::fs::rename(&draft, path));
    written.inspect_err(|_| drop(std::fs::remove_file(&draft)))
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Cargo,
    C,
    Python,
    JavaScript,
}

impl Source {
    fn of(folder: &Path) -> Result<Self> {
        let known = [
            ("Cargo.toml", Self::Cargo),
            ("plugin.c", Self::C),
            ("plugin.py", Self::Python),
            ("plugin.js", Self::JavaScript),
        ];
        let found = known.iter().find(|(file, _)| folder.join(file).is_file());
        found.map(|(_, source)| *source).with_context(|| {
            let files = known.map(|(file, _)| file).join(", ");
            format!("{}: expected one of the files {files}, found none", folder.display())
        })
    }
}

/// What a compiler made, and the folder for such things.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) target: PathBuf,
}

/// One shared library or component of a crate; the crate's own `crate-type` does not matter.
fn cargo(folder: &Path, lane: BuildLane) -> Result<Made> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(["rustc", "--lib", "--crate-type", "cdylib", "--release"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if lane == BuildLane::Wasm {
        command.args(["--target", WASM_TARGET]);
    }
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    command.args(["--", "-C", "strip=symbols"]).current_dir(folder).stdout(Stdio::piped());
    if lane == BuildLane::Native && cfg!(target_os = "linux") {
        // What libraries below the plugin export for other languages is not its own to export.
        command.args(["-C", "link-arg=-Wl,--exclude-libs,ALL"]);
    }
    let output = command.spawn().and_then(std::process::Child::wait_with_output).context(
        "cargo: cannot be run: get Rust from https://rustup.rs, or build on another machine",
    )?;
    if !output.status.success() {
        let hint = match lane {
            BuildLane::Native => String::new(),
            BuildLane::Wasm => format!("; the lane needs `rustup target add {WASM_TARGET}`, once"),
        };
        bail!("{}: cargo failed, see above{hint}", folder.display());
    }
    let library = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| library_of(line, &folder.join("Cargo.toml")))
        .next_back()
        .with_context(|| format!("{}: cargo built no library", folder.display()))?;
    let bytes = std::fs::read(&library).with_context(|| library.display().to_string())?;
    // `<target>/release/…`, or `<target>/<triple>/release/…`.
    let up = if lane == BuildLane::Wasm { 3 } else { 2 };
    let target = library.ancestors().nth(up).unwrap_or(folder).to_owned();
    Ok(Made { bytes, target })
}

/// The library that a line of cargo's messages tells of, if it is this crate's.
fn library_of(line: &str, manifest: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_ours = message["reason"] == "compiler-artifact"
        && message["manifest_path"].as_str().map(Path::new) == Some(manifest);
    let files = message["filenames"].as_array().filter(|_| is_ours)?;
    let mut files = files.iter().filter_map(Value::as_str);
    files.find(|file| file.ends_with(".so") || file.ends_with(".wasm")).map(PathBuf::from)
}

const WASM_TARGET: &str = "wasm32-wasip2";
