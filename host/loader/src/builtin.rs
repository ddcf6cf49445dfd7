//! The builtin lane: plugins that are linked into this process.

use std::sync::Arc;

use jackfield_runtime::{Lane, Origin, PluginInfo};
use plugin_api::registrar::{Builtin, Provided, Registrar};

use crate::error::LoadError;
use crate::manifest::PluginManifest;
use crate::owner::Generation;

/// A plugin that was loaded and may now be registered.
#[derive(Debug, Clone)]
pub struct LoadedPlugin {
    /// What it says of itself.
    pub manifest: PluginManifest,
    /// What it provides: as many kinds as it registered, all under the manifest's name.
    pub provided: Vec<Provided>,
    /// How it runs.
    pub lane: Lane,
    /// Where it came from; nothing for what is linked in.
    pub origin: Option<Origin>,
    /// The load and its instances; nothing for what is linked in.
    pub generation: Option<Arc<Generation>>,
}

impl LoadedPlugin {
    /// What a registry keeps of it.
    pub fn info(&self) -> PluginInfo {
        PluginInfo {
            name: self.manifest.name.clone(),
            description: self.manifest.description.clone(),
            api: self.manifest.api.clone(),
            lane: self.lane,
            origin: self.origin.clone(),
        }
    }
}

/// Every plugin that is linked into this process, by kind and name.
///
/// # Errors
///
/// [`LoadError`] for a manifest that cannot be read, for code that provides something other than
/// its manifest says and for two plugins of one name. Nothing is loaded then.
pub fn load_builtins() -> Result<Vec<LoadedPlugin>, LoadError> {
    load(plugin_api::builtins())
}

fn load<'a>(builtins: impl Iterator<Item = &'a Builtin>) -> Result<Vec<LoadedPlugin>, LoadError> {
    let mut plugins = builtins.map(load_one).collect::<Result<Vec<_>, _>>()?;
    plugins.sort_by_key(|plugin| plugin.manifest.capability());
    for pair in plugins.windows(2) {
        let capability = pair[0].manifest.capability();
        if capability == pair[1].manifest.capability() {
            let describe = |plugin: &LoadedPlugin| {
                format!("builtin `{}` ({})", plugin.manifest.name, plugin.manifest.description)
            };
            let (file, owner) = (describe(&pair[1]), describe(&pair[0]));
            return Err(LoadError::NameTaken { file, capability, owner });
        }
    }
    Ok(plugins)
}

fn load_one(builtin: &Builtin) -> Result<LoadedPlugin, LoadError> {
    let manifest = PluginManifest::parse("builtin plugin.toml", builtin.manifest)?;
    let mut registrar = Registrar::new();
    (builtin.register)(&mut registrar);
    let provided = registrar.into_provided();
    let is_same = |p: &Provided| p.kind == manifest.kind && p.name == manifest.name;
    if provided.is_empty() || !provided.iter().all(is_same) {
        let code: Vec<_> = provided.iter().map(|p| format!("{p:?}")).collect();
        return Err(LoadError::Mismatch {
            file: format!("builtin `{}`", manifest.name),
            manifest: manifest.capability(),
            code: if code.is_empty() { "nothing".to_owned() } else { code.join(", ") },
        });
    }
    Ok(LoadedPlugin { manifest, provided, lane: Lane::Builtin, origin: None, generation: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::kinds::scheduler::{Limits, Picked, Waiting};
    use plugin_api::{Capability, Config, Result, Scheduler};

    struct Idle;

    impl Capability for Idle {
        const NAME: &'static str = "idle";

        fn from_config(_config: &Config) -> Result<Self> {
            Ok(Self)
        }
    }

    impl Scheduler for Idle {
        fn pick(&mut self, _: &[Waiting], _: &Limits, _: &mut Vec<Picked>) -> Result<()> {
            Ok(())
        }
    }

    fn register(registrar: &mut Registrar) {
        registrar.provide::<dyn Scheduler, Idle>();
    }

    fn builtin(kind: &str, name: &str, register: fn(&mut Registrar)) -> Builtin {
        let manifest = format!(
            "name = \"{name}\"\nkind = \"{kind}\"\napi = \"0.0\"\ndescription = \"Waits\"\n\
             reload = \"stateless\"\npermissions = []\n"
        );
        Builtin { manifest: manifest.leak(), register }
    }

    #[test]
    fn makes_instances_of_what_is_linked() {
        let plugins = load([builtin("scheduler", "idle", register)].iter()).unwrap();
        assert_eq!(plugins[0].manifest.capability(), "scheduler/idle");
        let instance = (plugins[0].provided[0].make)(&Config::new()).unwrap();
        assert!(instance.downcast::<Box<dyn Scheduler>>().is_ok());
    }

    #[test]
    fn refuses_plugins_that_are_not_what_they_say() {
        #[rustfmt::skip]
        let cases = [
            (vec![builtin("scheduler", "busy", register)],
                "builtin `busy`: manifest says `scheduler/busy`, the code provides `scheduler/idle`"),
            (vec![builtin("hook", "idle", register)],
                "builtin `idle`: manifest says `hook/idle`, the code provides `scheduler/idle`"),
            (vec![builtin("hook", "idle", |_| ())],
                "builtin `idle`: manifest says `hook/idle`, the code provides `nothing`"),
            (vec![builtin("scheduler", "idle", register), builtin("scheduler", "idle", register)],
                "builtin `idle` (Waits): `scheduler/idle` is already provided by builtin `idle` (Waits)"),
        ];
        for (builtins, expected) in cases {
            assert_eq!(load(builtins.iter()).unwrap_err().to_string(), expected);
        }
    }
}
