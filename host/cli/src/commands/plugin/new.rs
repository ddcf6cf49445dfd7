//! `jackfield plugin new`: the folder of a plugin that works before its author changes it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jackfield_loader::PluginManifest;

use super::{say, templates};
use crate::args::{Lang, New};

/// Runs the command.
pub(super) fn run(args: &New) -> Result<()> {
    let here = std::env::current_dir()?;
    let place = Place::of(args, &here)?;
    let files = files(args, &place)?;
    if place.folder.exists() {
        bail!("{}: expected a name that is free, found a folder", place.folder.display());
    }
    for (file, text) in &files {
        let path = place.folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(&place.folder))?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let folder = place.folder.strip_prefix(&here).unwrap_or(&place.folder).display();
    let source = match args.lang {
        Lang::Rust | Lang::RustWasm => "src/lib.rs",
        Lang::C => templates::C.0,
        Lang::Python => templates::PYTHON.0,
        Lang::Js => templates::JS.0,
    };
    let next = match (&place.workspace, args.lang.is_rust()) {
        (Some(_), _) => format!(
            "  BLESS=1 cargo tidy      adds it to the builtin plugins\n  \
             cargo test -p {}",
            place.package
        ),
        (None, true) => {
            format!(
                "  cd {folder} && cargo test\n  jackfield plugin build     then check and swap: README.md"
            )
        }
        (None, false) => {
            format!("  cd {folder} && jackfield plugin build     what it needs: README.md")
        }
    };
    say(&format!("{folder}: edit {source}, then\n{next}"))
}

/// Where the plugin goes.
struct Place {
    folder: PathBuf,
    package: String,
    /// The workspace of this project that it becomes a member of.
    workspace: Option<PathBuf>,
}

impl Place {
    fn of(args: &New, here: &Path) -> Result<Self> {
        let (name, kind) = (args.name.as_str(), args.kind.as_str());
        // The manifest's own rules: kebab-case, and a name that fits into paths.
        PluginManifest::parse("plugin new", &manifest(args))
            .with_context(|| format!("`{name}` of the kind `{kind}`"))?;
        let kinds = templates::kinds();
        if !kinds.contains(&kind) {
            bail!("kind `{kind}`: expected one of {}", kinds.join(", "));
        }
        if kinds.contains(&name) {
            bail!("name `{name}`: expected another word than the name of a kind");
        }
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            bail!("name `{name}`: expected a letter first: it becomes the name of a type");
        }
        let is_ours = |folder: &&Path| {
            folder.join("plugin-api/Cargo.toml").is_file() && folder.join("plugins").is_dir()
        };
        let workspace = here.ancestors().find(is_ours).filter(|_| args.lang.is_rust());
        let (folder, prefix) = match (workspace, kind) {
            (Some(root), "backend") => (root.join("backends").join(name), "backend"),
            (Some(root), _) => (root.join("plugins").join(kind).join(name), "plugin"),
            (None, _) => (here.join(name), "plugin"),
        };
        let package = format!("{prefix}-{name}");
        Ok(Self { folder, package, workspace: workspace.map(Path::to_owned) })
    }
}

impl Lang {
    fn is_rust(self) -> bool {
        matches!(self, Self::Rust | Self::RustWasm)
    }
}

/// Every file with its path in the folder.
fn files(args: &New, place: &Place) -> Result<Vec<(String, String)>> {
    let kind = args.kind.as_str();
    let is_component = templates::WASM.contains(&kind);
    if args.lang != Lang::Rust && !is_component {
        bail!("kind `{kind}`: runs in the lanes builtin and native only: use --lang rust");
    }
    let file = |name: &str, text: String| (name.to_owned(), text);
    let mut files = vec![
        file("plugin.toml", manifest(args)),
        file("README.md", readme(args)),
        file(
            ".gitignore",
            "/target\n/node_modules\n/package-lock.json\n/Cargo.lock\n__pycache__\n".to_owned(),
        ),
    ];
    if args.lang.is_rust() {
        let source = templates::rust(kind, &args.name).unwrap_or_default();
        files.push(file("src/lib.rs", source));
        files.push(file("Cargo.toml", cargo_toml(args, place)?));
        if place.workspace.is_some() {
            files.retain(|(name, _)| name != ".gitignore");
        }
        return Ok(files);
    }
    if kind != "logits-processor" {
        bail!(
            "kind `{kind}`: expected --kind logits-processor: other kinds have templates in Rust \
             only; the interfaces of all stand in plugin-api/wit/v0.0"
        );
    }
    let (name, source) = match args.lang {
        Lang::C => templates::C,
        Lang::Python => templates::PYTHON,
        _ => templates::JS,
    };
    files.push(file(name, templates::renamed(source, &args.name)));
    if args.lang == Lang::Js {
        files.push(file("package.json", templates::renamed(templates::PACKAGE_JSON, &args.name)));
    }
    files.extend(templates::WIT.map(|(name, text)| file(&format!("wit/{name}"), text.to_owned())));
    Ok(files)
}

fn manifest(args: &New) -> String {
    let description = match args.lang {
        Lang::Rust | Lang::RustWasm => "Written with `jackfield plugin new`",
        _ => "Never answers with one token",
    };
    let permissions = if args.kind == "memory" { "[\"store\"]" } else { "[]" };
    format!(
        "name = {:?}\nkind = {:?}\napi = \"0.0\"\ndescription = {description:?}\n\
         reload = \"stateless\"\npermissions = {permissions}\n",
        args.name, args.kind
    )
}

fn readme(args: &New) -> String {
    let lane = if args.lang == Lang::Rust { "native" } else { "wasm" };
    let ending = if args.lang == Lang::Rust { "so" } else { "wasm" };
    let (need, test) = match args.lang {
        Lang::Rust => ("Rust", "cargo test\n"),
        Lang::RustWasm => ("Rust, and once `rustup target add wasm32-wasip2`", "cargo test\n"),
        Lang::C => {
            ("clang with lld, and `wasm-tools` or `npm install @bytecodealliance/jco` (here)", "")
        }
        Lang::Python => ("`pip install componentize-py`", ""),
        Lang::Js => ("Node 20, and once `npm install` (here)", ""),
    };
    let (name, kind) = (&args.name, &args.kind);
    // The key that makes the template act.
    let config = if kind == "logits-processor" { " --config never=1" } else { "" };
    format!(
        "# {name}\n\nA plugin of the kind `{kind}`. Building it needs {need}.\n\n```sh\n{test}\
         jackfield plugin build --lane {lane}\n\
         jackfield plugin check target/plugins/{name}.{ending}{config}\n\
         jackfield plugin swap target/plugins/{name}.{ending}   # into a host that runs\n```\n"
    )
}

fn cargo_toml(args: &New, place: &Place) -> Result<String> {
    let package = &place.package;
    if place.workspace.is_some() {
        return Ok(format!(
            "[package]\nname = {package:?}\nversion.workspace = true\nedition.workspace = true\n\
             rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\n\
             [lib]\ndoctest = false\n\n[dependencies]\nplugin-api.workspace = true\n\n\
             [dev-dependencies]\nplugin-api = {{ workspace = true, features = [\"testing\"] }}\n\n\
             [lints]\nworkspace = true\n"
        ));
    }
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-api");
    let path = match &args.api {
        Some(path) => Some(path.canonicalize().with_context(|| {
            format!("--api {}: expected the folder of the crate plugin-api", path.display())
        })?),
        None => built_from.canonicalize().ok(),
    };
    let api = match path {
        Some(path) => format!("path = {:?}", path.display().to_string()),
        None => "version = \"0.0\"".to_owned(),
    };
    Ok(format!(
        "[package]\nname = {package:?}\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ndoctest = false\n\n[dependencies]\nplugin-api = {{ {api} }}\n\n\
         [dev-dependencies]\nplugin-api = {{ {api}, features = [\"testing\"] }}\n\n\
         # Contract suites compute: without optimization they take minutes.\n\
         [profile.dev]\nopt-level = 1\n\n\
         [workspace]\n"
    ))
}
