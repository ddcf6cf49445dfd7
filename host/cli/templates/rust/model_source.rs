//! My plugin: a model that is already on this machine, named by its path.
//!
//! Source: no mathematics and no protocol; paths as `std::path` understands them.

use std::path::{Path, PathBuf};

use plugin_api::prelude::*;

/// Takes paths that exist. Nothing is copied.
#[derive(Debug)]
pub struct MyPlugin;

impl Capability for MyPlugin {
    const NAME: &'static str = "my-plugin";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self)
    }
}

impl ModelSource for MyPlugin {
    fn list(&self) -> Vec<ModelEntry> {
        Vec::new()
    }

    fn resolve(&self, name: &str, host: &Host) -> Result<Option<ModelEntry>> {
        // `/a`, `./a` and `../a` can be nothing but paths; `a.gguf` may be one.
        let is_path = ["/", "./", "../"].iter().any(|start| name.starts_with(start));
        let is_model = [".gguf", ".safetensors"].iter().any(|end| name.ends_with(end));
        if !is_path && !is_model {
            return Ok(None);
        }
        match host.services().size_bytes(Path::new(name)) {
            Ok(Some(size)) => Ok(Some(ModelEntry {
                name: name.to_owned(),
                description: "on this machine".to_owned(),
                size_bytes: Some(size),
            })),
            Ok(None) if is_path => Err(missing(name)),
            Err(error) if is_path => Err(error),
            // Another source may know `user/repo:a.gguf`.
            Ok(None) | Err(_) => Ok(None),
        }
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        _folder: &Path,
        _progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        let path = PathBuf::from(&entry.name);
        match host.services().size_bytes(&path)? {
            Some(_) => Ok(path),
            None => Err(missing(&entry.name)),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::outside(format_args!("model file {name}"), "expected an existing file or folder")
}

export_plugin!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        plugin_api::testing::model_source::suite::<MyPlugin>(&Config::new());
    }
}
