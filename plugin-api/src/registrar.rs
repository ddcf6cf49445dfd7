//! How a plugin makes its capabilities known, in every lane.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Result;
use crate::kinds::{Capability, Implements, Kind, Pin};

/// Makes one instance: a `Box<Box<dyn Kind>>` behind `Any`.
pub type Factory = Arc<dyn Fn(&Config) -> Result<Box<dyn Any + Send>> + Send + Sync>;

/// One kind under one name, with the way to make it.
#[derive(Clone)]
pub struct Provided {
    /// [`Kind::NAME`].
    pub kind: &'static str,
    /// How it may be swapped.
    pub pin: Pin,
    /// Whether instances are only traced.
    pub is_traced: bool,
    /// [`Capability::NAME`].
    pub name: Cow<'static, str>,
    /// Makes an instance from its configuration.
    pub make: Factory,
}

impl fmt::Debug for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What a plugin registers with, once, while it is loaded.
#[derive(Debug, Default)]
pub struct Registrar {
    provided: Vec<Provided>,
}

impl Registrar {
    /// Nothing registered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the capability `T` of the kind `K`; `export_plugin!` writes the call.
    pub fn provide<K, T>(&mut self)
    where
        K: Kind + ?Sized,
        T: Capability + Implements<K>,
        Box<K>: Send,
    {
        let make = |config: &Config| {
            let instance: Box<K> = T::from_config(config)?.boxed();
            Ok(Box::new(instance) as Box<dyn Any + Send>)
        };
        self.provided.push(Provided {
            kind: K::NAME,
            pin: K::PIN,
            is_traced: K::IS_TRACED,
            name: T::NAME.into(),
            make: Arc::new(make),
        });
    }

    /// Everything that was registered.
    pub fn into_provided(self) -> Vec<Provided> {
        self.provided
    }
}

/// A plugin that is linked into the process.
pub struct Builtin {
    /// Its `plugin.toml`, as text.
    pub manifest: &'static str,
    /// Registers its capabilities.
    pub register: fn(&mut Registrar),
}

inventory::collect!(Builtin);

/// Every plugin linked into this process, in no particular order.
pub fn builtins() -> impl Iterator<Item = &'static Builtin> {
    inventory::iter::<Builtin>.into_iter()
}
