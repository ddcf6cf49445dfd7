//! Instances of the subject: as they are, and over the boundary and back in the same process.

use std::any::Any;
use std::sync::{Arc, Mutex};

use plugin_api::native::abi::{Open, Opened, Out};
use plugin_api::native::{self, Crosses, Foreign, Owner};
use plugin_api::{Capability, Config, Error, Implements, Kind, Result};

use crate::subject::{Subject, register};

unsafe extern "C" fn open<K: Crosses + ?Sized>(
    request: *const Open<'_>,
    opened: *mut Opened,
    out: *const Out,
) -> u32 {
    // SAFETY: the host's pointers are valid for the call.
    unsafe { native::open_of::<K>(register, request, opened, out) }
}

/// The subject as a plugin of the kind `K`.
pub(crate) fn foreign<K: Crosses + ?Sized>() -> Foreign {
    let entry = const { &native::entry_of::<K>(b"name = \"subject\"", open::<K>) };
    // SAFETY: made by `entry_of` of this very build, which is never unmapped.
    unsafe { Foreign::new(entry) }
}

/// The load that instances belong to: keeps what it was told.
#[derive(Default)]
pub(crate) struct Watch {
    faults: Mutex<Vec<Error>>,
}

impl Watch {
    pub(crate) fn faults(&self) -> Vec<Error> {
        self.faults.lock().unwrap().clone()
    }

    /// Exactly one fault, which says this.
    pub(crate) fn expect(&self, part: &str) {
        let faults = self.faults();
        assert!(faults.len() == 1 && faults[0].to_string().contains(part), "{part}: {faults:?}");
    }
}

impl Owner for Watch {
    fn label(&self) -> String {
        "plugin subject#1".to_owned()
    }

    fn fault(&self, error: &Error) {
        self.faults.lock().unwrap().push(error.clone());
    }
}

/// The subject across the boundary.
pub(crate) fn try_import<K>(from: Foreign, config: &Config) -> Result<(Box<K>, Arc<Watch>)>
where
    K: Kind + ?Sized,
    Box<K>: Any,
{
    let watch = Arc::new(Watch::default());
    let owner = Arc::clone(&watch);
    let provided = from.provided(K::NAME, Subject::NAME, move || Arc::clone(&owner) as _)?;
    assert_eq!((provided.kind, provided.pin, &*provided.name), (K::NAME, K::PIN, "subject"));
    assert_eq!(provided.is_traced, K::IS_TRACED);
    let instance = (provided.make)(config)?;
    Ok((*instance.downcast::<Box<K>>().unwrap(), watch))
}

pub(crate) fn import<K>(config: &Config) -> (Box<K>, Arc<Watch>)
where
    K: Crosses + ?Sized,
    Box<K>: Any,
{
    try_import(foreign::<K>(), config).unwrap()
}

/// The subject as it is.
pub(crate) fn direct<K: ?Sized>(config: &Config) -> Box<K>
where
    Subject: Implements<K>,
{
    Subject::from_config(config).unwrap().boxed()
}

/// Both, to be compared.
pub(crate) fn both<K>() -> [Box<K>; 2]
where
    K: Crosses + ?Sized,
    Box<K>: Any,
    Subject: Implements<K>,
{
    [direct(&Config::new()), import(&Config::new()).0]
}

/// A configuration that makes a method panic, fail or lie.
pub(crate) fn told(what: &str, method: &str) -> Config {
    Config::new().with(what, method)
}

/// Makes each method panic and fail in turn: an error or a fault that says so, and afterwards the
/// instance is not called any more. `call` returns nothing for methods that have no error.
pub(crate) fn check<K>(methods: &[Method<'_, K>])
where
    K: Crosses + ?Sized,
    Box<K>: Any,
{
    for (method, call) in methods {
        let (mut instance, watch) = import::<K>(&told("panics", method));
        let first = call(&mut instance);
        watch.expect(&format!("panicked: on purpose, in {method}"));
        if let Some(error) = first {
            assert_eq!(error, watch.faults()[0], "{method}");
            let second = call(&mut instance).unwrap();
            assert!(second.to_string().contains("has to be replaced"), "{method}: {second}");
            let (mut instance, watch) = import::<K>(&told("fails", method));
            assert_eq!(call(&mut instance), Some(crate::subject::denied(method)), "{method}");
            assert!(watch.faults().is_empty(), "{method}: an error is no fault");
        } else {
            call(&mut instance);
        }
        watch.expect("on purpose");
        drop(instance);
        watch.expect("on purpose");
    }
}

/// A method's name, and how to call it.
pub(crate) type Method<'a, K> = (&'a str, &'a dyn Fn(&mut K) -> Option<Error>);
