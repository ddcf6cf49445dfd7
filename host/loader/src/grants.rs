//! What a plugin may do outside of itself. Without a grant: nothing.

use std::io;
use std::path::{Component, Path, PathBuf};

use plugin_api::{Config, Result, Value};

use crate::manifest::Permission;

/// The grants of one plugin: the table `[grants.<plugin>]` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    network: Vec<String>,
    process: Vec<String>,
    clock: bool,
    vocabulary: bool,
    store: bool,
}

impl Grants {
    /// Nothing is granted.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a table with the keys `read`, `write` (paths), `network` (hosts), `process`
    /// (programs), `clock`, `vocabulary` and `store`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](plugin_api::Error::Config) for a value of another type.
    pub fn from_config(config: &Config) -> Result<Self> {
        let paths = |key| Ok(texts(config, key)?.into_iter().map(PathBuf::from).collect());
        Ok(Self {
            read: paths("read")?,
            write: paths("write")?,
            network: texts(config, "network")?,
            process: texts(config, "process")?,
            clock: config.flag_or("clock", false)?,
            vocabulary: config.flag_or("vocabulary", false)?,
            store: config.flag_or("store", false)?,
        })
    }

    /// What a model source that comes with the product is granted: its folder, `python3`, and the
    /// hosts of the Hugging Face hub.
    pub fn for_builtin_source(models_folder: &Path) -> Self {
        Self {
            read: vec![models_folder.to_owned()],
            write: vec![models_folder.to_owned()],
            network: HUB_HOSTS.map(str::to_owned).to_vec(),
            process: vec!["python3".to_owned()],
            clock: false,
            vocabulary: false,
            store: false,
        }
    }

    /// The tokens of the model, rows of its own, and nothing else: what every plugin that comes with the product
    /// is granted.
    pub fn for_builtin() -> Self {
        Self { vocabulary: true, store: true, ..Self::none() }
    }

    /// The same grants, and reading below `path`: for a path that the operator names.
    #[must_use]
    pub fn with_read(mut self, path: &Path) -> Self {
        self.read.push(path.to_owned());
        self
    }

    /// Only those of the grants that `permissions` ask for.
    #[must_use]
    pub fn within(self, permissions: &[Permission]) -> Self {
        let has = |permission| permissions.contains(&permission);
        Self {
            read: if has(Permission::Read) { self.read } else { Vec::new() },
            write: if has(Permission::Write) { self.write } else { Vec::new() },
            network: if has(Permission::Network) { self.network } else { Vec::new() },
            process: if has(Permission::Process) { self.process } else { Vec::new() },
            clock: has(Permission::Clock) && self.clock,
            vocabulary: has(Permission::Vocabulary) && self.vocabulary,
            store: has(Permission::Store) && self.store,
        }
    }

    /// The place that `path` really means, if reading it is granted.
    pub(crate) fn readable(&self, path: &Path) -> Option<PathBuf> {
        allowed(&self.read, path)
    }

    /// The place that `path` really means, if writing it is granted.
    pub(crate) fn writable(&self, path: &Path) -> Option<PathBuf> {
        allowed(&self.write, path)
    }

    /// Whether fetching from `host` is granted: by its name, by `*.` and a parent domain, or with
    /// its port.
    pub(crate) fn allows_host(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        self.network.iter().any(|pattern| {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.strip_prefix("*.") {
                Some(domain) => host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.')),
                None => pattern == host || pattern == format!("{host}:{port}"),
            }
        })
    }

    /// Whether running `program` is granted: the very same name or path.
    pub(crate) fn allows_program(&self, program: &str) -> bool {
        self.process.iter().any(|granted| granted == program)
    }

    /// Whether the tokens of the model are granted.
    pub(crate) fn allows_vocabulary(&self) -> bool {
        self.vocabulary
    }

    /// Whether rows of its own are granted.
    pub(crate) fn allows_store(&self) -> bool {
        self.store
    }

    /// Whether the time of day is granted.
    pub(crate) fn allows_clock(&self) -> bool {
        self.clock
    }
}

fn texts(config: &Config, key: &str) -> Result<Vec<String>> {
    let text = |value: &Value| match value {
        Value::Text(text) if !text.is_empty() => Ok(text.clone()),
        other => Err(config.wrong(key, "a list of texts", Some(other))),
    };
    config.list(key)?.iter().map(text).collect()
}

/// What `path` really means, if it lies at or below one of `granted`. Both are resolved at the time
/// of the call: a link may have been placed since the grant was given.
fn allowed(granted: &[PathBuf], path: &Path) -> Option<PathBuf> {
    let path = resolve(path).ok()?;
    let is_below = |grant: &PathBuf| resolve(grant).is_ok_and(|grant| path.starts_with(grant));
    granted.iter().any(is_below).then_some(path)
}

/// `path` made absolute, without `.` and `..`, and without symbolic links in the part that exists.
///
/// # Errors
///
/// What the operating system says, for instance of a link that leads nowhere: a file created there
/// would be created somewhere else.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = normalize(&std::path::absolute(path)?);
    for ancestor in path.ancestors() {
        if ancestor.symlink_metadata().is_ok() {
            let missing = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            let mut real = ancestor.canonicalize()?;
            // Only components: pushing an empty path would append a slash.
            real.extend(missing.components());
            return Ok(real);
        }
    }
    Ok(path)
}

/// Takes `.` and `..` out of an absolute path by its text alone.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Where the hub answers and where it keeps its files.
const HUB_HOSTS: [&str; 3] = ["huggingface.co", "*.huggingface.co", "*.hf.co"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_name_domain_or_port() {
        let hosts = ["huggingface.co", "*.hf.co", "127.0.0.1:8080"].map(Value::from).to_vec();
        let grants = Grants::from_config(&Config::new().with("network", hosts)).unwrap();
        #[rustfmt::skip]
        let cases = [
            ("huggingface.co",         443,  true),
            ("HuggingFace.co",         443,  true),
            ("cdn-lfs.hf.co",          443,  true),
            ("hf.co",                  443,  false),
            ("evilhf.co",              443,  false),
            ("huggingface.co.evil.io", 443,  false),
            ("127.0.0.1",              8080, true),
            ("127.0.0.1",              80,   false),
        ];
        for (host, port, expected) in cases {
            assert_eq!(grants.allows_host(host, port), expected, "{host}:{port}");
        }
    }

    #[test]
    fn paths_are_granted_by_where_they_really_lead() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("models/deep")).unwrap();
        std::fs::create_dir_all(at("models-secret")).unwrap();
        std::fs::create_dir_all(at("outside")).unwrap();
        std::os::unix::fs::symlink(at("outside"), at("models/out")).unwrap();
        std::os::unix::fs::symlink(at("outside/none"), at("models/dangling")).unwrap();
        std::os::unix::fs::symlink(at("models/deep"), at("models/in")).unwrap();
        let grants = Grants::for_builtin_source(&at("models"));
        #[rustfmt::skip]
        let cases = [
            ("models",                    Some("models")),
            ("models/a.gguf",             Some("models/a.gguf")),
            ("models/new/folder/a",       Some("models/new/folder/a")),
            ("models/./deep/../a",        Some("models/a")),
            ("models/in/a",               Some("models/deep/a")),
            ("models/../outside/a",       None),
            ("models/out/a",              None),
            ("models/out",                None),
            ("models/dangling",           None),
            ("models-secret/a",           None),
            ("",                          None),
        ];
        for (path, expected) in cases {
            let found = grants.writable(&at(path));
            assert_eq!(found, expected.map(|path| root.join(path)), "{path}");
        }
        assert_eq!(Grants::none().readable(&at("models")), None);
    }

    #[test]
    fn a_plugin_gets_no_more_than_its_manifest_asks_for() {
        let grants = Grants::for_builtin_source(Path::new("/models"));
        let narrow = grants.within(&[Permission::Read]);
        assert!(narrow.readable(Path::new("/models/a")).is_some());
        assert!(narrow.writable(Path::new("/models/a")).is_none());
        assert!(!narrow.allows_program("python3") && !narrow.allows_host("huggingface.co", 443));
    }
}
