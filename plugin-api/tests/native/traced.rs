//! Traced kinds over the boundary.

use plugin_api::plan::PlanBuilder;
use plugin_api::prelude::*;

use crate::rig::{both, check, import, told};

fn config() -> Config {
    Config::at("layer").with("eps", 1e-5).with("width", 4).with("theta", 100).with("misspelt", 1)
}

fn builder() -> PlanBuilder {
    let mut builder = PlanBuilder::new();
    builder.declare_weight("norm.weight", Spec::f32([8.into()])).unwrap();
    builder.declare_weight("proj.weight", Spec::f32([8.into(), 8.into()])).unwrap();
    builder
}

fn traced(part: &dyn Traced) -> Result<Plan> {
    let (mut builder, config) = (builder(), config());
    let x = builder.input("x", Spec::f32([Dim::TOKENS, 8.into()]))?;
    let results = part.trace(&mut builder, &[x], &LayerRef { index: 3, config: &config })?;
    builder.output("y", results[0])?;
    Ok(builder.finish())
}

#[test]
fn plans_are_the_same_bytes() {
    macro_rules! check {
        ($($kind:ident),*) => {
            $(
                let [direct, foreign] = both::<dyn $kind>();
                let (expected, found) = (traced(&*direct).unwrap(), traced(&*foreign).unwrap());
                assert_eq!(found.to_bytes(), expected.to_bytes(), stringify!($kind));
                assert!(found.num_nodes() >= 4, "{found}");
                assert_eq!(direct.semantic_id(), foreign.semantic_id());
            )*
        };
    }
    check!(
        Norm,
        Residual,
        FeedForward,
        MoeRouter,
        Encoder,
        Objective,
        Optimizer,
        LrSchedule,
        Adapter,
        Mixer,
        RotaryEmbedding
    );
}

#[test]
fn states_and_rotations_are_the_same() {
    let (config, at) = (config(), 3);
    let at = LayerRef { index: at, config: &config };
    let [direct, foreign] = both::<dyn Mixer>();
    assert_eq!(direct.state(&at).unwrap(), foreign.state(&at).unwrap());
    let [direct, foreign] = both::<dyn RotaryEmbedding>();
    assert_eq!(direct.rotation(&config).unwrap(), foreign.rotation(&config).unwrap());
    let nothing = Config::at("layer");
    assert_eq!(direct.rotation(&nothing).unwrap_err(), foreign.rotation(&nothing).unwrap_err());
}

#[test]
fn a_missing_weight_and_a_value_of_nobody_are_errors() {
    let [direct, foreign] = both::<dyn Norm>();
    let config = config();
    let at = LayerRef { index: 0, config: &config };
    let without = |part: &dyn Traced| {
        let mut builder = PlanBuilder::new();
        let x = builder.input("x", Spec::f32([Dim::TOKENS, 8.into()])).unwrap();
        part.trace(&mut builder, &[x], &at).unwrap_err()
    };
    assert_eq!(without(&*foreign), without(&*direct));
    let (liar, _) = import::<dyn Norm>(&told("lies", "trace"));
    assert!(matches!(traced(&*liar), Err(Error::Malformed { .. })));
}

#[test]
fn panics_and_errors_are_contained() {
    check::<dyn Mixer>(&[
        ("trace", &|part| traced(part).err()),
        ("state", &|part| {
            let config = config();
            part.state(&LayerRef { index: 0, config: &config }).err()
        }),
        ("semantic_id", &|part| {
            assert!(part.semantic_id().0.contains("failed"));
            None
        }),
    ]);
    check::<dyn RotaryEmbedding>(&[("rotation", &|part| part.rotation(&config()).err())]);
}
