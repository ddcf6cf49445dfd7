//! The lane itself: which kinds it carries, layouts, and what opening an instance says.

use plugin_api::kinds::backend::Backend;
use plugin_api::kinds::hook::Hook;
use plugin_api::native::Crosses;
use plugin_api::native::abi::TypeLayout;
use plugin_api::prelude::*;

use crate::rig::{foreign, import, told, try_import};
use crate::subject::denied;

#[test]
fn carries_every_kind_with_the_layout_of_its_table() {
    fn check<K: Crosses + ?Sized>() {
        let (interface, mine, theirs) = foreign::<K>().layouts(K::NAME).unwrap();
        // SAFETY: the plugin is this very build.
        let theirs = unsafe { theirs.as_ref() }.unwrap();
        let of = |layout: &TypeLayout| (layout.name(), layout.size(), layout.alignment());
        assert_eq!(of(mine), of(theirs), "{}: {interface}", K::NAME);
        assert!(interface.starts_with("jackfield.") && interface.ends_with("/1"), "{interface}");
    }
    check::<dyn Adapter>();
    check::<dyn Backend>();
    check::<dyn Compressor>();
    check::<dyn Curriculum>();
    check::<dyn DecodingStrategy>();
    check::<dyn Encoder>();
    check::<dyn FeedForward>();
    check::<dyn Hook>();
    check::<dyn KvCache>();
    check::<dyn LogitsProcessor>();
    check::<dyn LrSchedule>();
    check::<dyn Memory>();
    check::<dyn Mixer>();
    check::<dyn ModelSource>();
    check::<dyn MoeRouter>();
    check::<dyn Norm>();
    check::<dyn Objective>();
    check::<dyn Optimizer>();
    check::<dyn OutputParser>();
    check::<dyn Quantizer>();
    check::<dyn Residual>();
    check::<dyn Reward>();
    check::<dyn RotaryEmbedding>();
    check::<dyn Scheduler>();
    let foreign = foreign::<dyn Norm>();
    assert!(matches!(foreign.layouts("none"), Err(Error::NotFound { .. })));
    assert!(foreign.layouts("hook").unwrap().2.is_null(), "a plugin knows its own kind only");
}

#[test]
fn marks_of_a_plugins_own_configuration_come_back() {
    let config = Config::new().with("lies", "").with("misspelt", 1);
    drop(import::<dyn Norm>(&config));
    assert_eq!(config.unread().collect::<Vec<_>>(), ["misspelt"]);
}

#[test]
fn errors_and_panics_of_making_an_instance_are_errors() {
    let refused = try_import::<dyn Norm>(foreign::<dyn Norm>(), &told("fails", "from_config"));
    assert_eq!(refused.err(), Some(denied("from_config")));
    let panicked = try_import::<dyn Norm>(foreign::<dyn Norm>(), &told("panics", "from_config"));
    let error = panicked.err().unwrap().to_string();
    assert!(error.contains("panicked: on purpose, in from_config"), "{error}");
    let wrong = try_import::<dyn Norm>(foreign::<dyn Norm>(), &Config::new().with("lies", 3));
    assert!(matches!(wrong.err(), Some(Error::Config { key, .. }) if key == "lies"));
    let owner = || -> std::sync::Arc<dyn plugin_api::native::Owner> {
        std::sync::Arc::new(crate::rig::Watch::default())
    };
    let unknown = foreign::<dyn Norm>().provided("norm", "other", owner).unwrap();
    let error = (unknown.make)(&Config::new()).err();
    assert!(matches!(&error, Some(Error::NotFound { name, .. }) if name == "other"), "{error:?}");
}

#[test]
fn a_panic_while_an_instance_ends_is_a_fault() {
    macro_rules! check {
        ($($kind:ident),*) => {
            $(
                let (instance, watch) = import::<dyn $kind>(&told("panics", "drop"));
                drop(instance);
                watch.expect("on purpose, in drop");
            )*
        };
    }
    check!(
        Adapter,
        Backend,
        Compressor,
        Curriculum,
        DecodingStrategy,
        Encoder,
        FeedForward,
        Hook,
        KvCache,
        LogitsProcessor,
        LrSchedule,
        Memory,
        Mixer,
        ModelSource,
        MoeRouter,
        Norm,
        Objective,
        Optimizer,
        OutputParser,
        Quantizer,
        Residual,
        Reward,
        RotaryEmbedding,
        Scheduler
    );
}
