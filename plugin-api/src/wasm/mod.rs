//! The guest side of the WASM lane: a plugin crate, unchanged, as a component of its kind's world.
//!
//! One file a kind, as in [`kinds`](crate::kinds): each turns the calls of `wit/v0.0` into calls of
//! the trait object that the plugin registers. Only translation stands here. Authors never see
//! these files: `export_plugin!` expands to [`export_wasm!`](crate::export_wasm) where the target
//! is WASM. One instance of a component is one instance of its plugin.

/// The module `bindings`: a world of `wit/v0.0` as generated, over the types of [`offers`]. Interfaces
/// that it imports beside those that all worlds do are named; a `part` does not import `host`.
macro_rules! world {
    (part $world:tt $(, $key:tt => $interface:ident)* $(,)?) => {
        $crate::wasm::world!(@ $world
            "jackfield:plugin/types@0.0.0" => types,
            "jackfield:plugin/settings@0.0.0" => settings,
            $($key => $interface,)*);
    };
    (@ $world:tt $($key:tt => $interface:ident,)*) => {
        #[allow(
            missing_docs,
            unreachable_pub,
            unsafe_code,
            unused_qualifications,
            clippy::all,
            clippy::allow_attributes_without_reason,
            clippy::mem_forget,
            clippy::use_self,
            clippy::undocumented_unsafe_blocks,
            clippy::needless_pass_by_value,
            elided_lifetimes_in_paths,
            reason = "generated from WIT"
        )]
        pub mod bindings {
            wit_bindgen::generate!({
                path: "wit/v0.0",
                world: $world,
                with: { $($key: crate::wasm::offers::jackfield::plugin::$interface),* },
                pub_export_macro: true,
                runtime_path: "::plugin_api::wasm::rt",
            });
        }
    };
    ($world:tt $(, $key:tt => $interface:ident)* $(,)?) => {
        $crate::wasm::world!(part $world,
            "jackfield:plugin/host@0.0.0" => host,
            $($key => $interface,)*);
    };
}
pub(crate) use world;

mod config;
pub mod curriculum;
pub mod decoding_strategy;
mod error;
mod export;
pub mod hook;
mod host;
pub mod logits_processor;
pub mod memory;
pub mod mixer;
pub mod model_source;
pub mod offers;
pub mod output_parser;
pub mod quantizer;
pub mod reward;
pub mod rotary_embedding;
mod rows;
pub mod scheduler;
mod sink;
pub mod traced;

pub use wit_bindgen::rt;

use std::cell::RefCell;
use std::sync::Once;
use std::thread::LocalKey;

use crate::error::{Error, Result};
use crate::kinds::Kind;
use crate::registrar::Registrar;
use offers::jackfield::plugin::types::Error as WireError;

/// The plugin behind a component.
pub trait Plugin: 'static {
    /// Its kind.
    type Kind: Kind + ?Sized;

    /// Registers its capabilities.
    fn register(registrar: &mut Registrar);
}

/// The place of the one instance. WASM has one thread.
type Place<K> = LocalKey<RefCell<Option<Box<K>>>>;

/// Makes the instance from its configuration.
fn make<P: Plugin>(
    settings: &offers::jackfield::plugin::settings::Config,
) -> Result<Box<P::Kind>, WireError> {
    report_panics();
    let mut registrar = Registrar::new();
    P::register(&mut registrar);
    let provided = registrar.into_provided();
    let mine = provided.iter().find(|provided| provided.kind == P::Kind::NAME);
    let missing = || Error::unsupported(P::Kind::NAME, "the plugin registers no such kind");
    let mine = mine.ok_or_else(missing)?;
    let config = config::copied(settings);
    let made = (mine.make)(&config);
    config::mark_read(&config, settings);
    match made?.downcast::<Box<P::Kind>>() {
        Ok(instance) => Ok(*instance),
        Err(_) => Err(missing().into()),
    }
}

/// Puts the instance in its place, once.
fn place<K: ?Sized>(place: &'static Place<K>, instance: Box<K>) -> Result<(), WireError> {
    place.with_borrow_mut(|place| match place {
        Some(_) => Err(Error::unsupported("create", "an instance is created once").into()),
        None => {
            *place = Some(instance);
            Ok(())
        }
    })
}

/// Calls `act` with the instance.
///
/// # Panics
///
/// If there is none: the host creates before it calls.
fn with<K: ?Sized, R>(place: &'static Place<K>, act: impl FnOnce(&mut K) -> R) -> R {
    place.with_borrow_mut(|place| match place {
        Some(instance) => act(instance),
        None => panic!("called before `create`"),
    })
}

/// Tells the host what a panic says, since all that follows is a trap without words.
fn report_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            offers::jackfield::plugin::host::fault(&panic.to_string());
        }));
    });
}
