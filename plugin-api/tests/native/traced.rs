//! Traced kinds over the boundary.

use plugin_api::plan::PlanBuilder;
use plugin_api::prelude::*;
use plugin_api::{TensorMut, TensorRef};

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

/// What a part answers to `callback` for three rows of two numbers and a vector of indices.
fn called(part: &dyn Traced, num_outputs: usize) -> Result<(Vec<f32>, Vec<u32>)> {
    let (x, ids) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [7, 8, 9]);
    let inputs = [
        Shaped { dims: &[3, 2], values: TensorRef::F32(&x) },
        Shaped { dims: &[3], values: TensorRef::U32(&ids) },
    ];
    let (mut sums, mut places) = (vec![0.0; 3], vec![0; 3]);
    let mut outputs = [
        ShapedMut { dims: &[3], values: TensorMut::F32(&mut sums) },
        ShapedMut { dims: &[3], values: TensorMut::U32(&mut places) },
    ];
    part.call("route", &inputs, &mut outputs[..num_outputs])?;
    Ok((sums, places))
}

#[test]
fn callbacks_write_where_the_host_says() {
    let [direct, foreign] = both::<dyn MoeRouter>();
    let expected = (vec![3.0, 7.0, 11.0], vec![0, 1, 2]);
    assert_eq!(called(&*direct, 2).unwrap(), expected);
    assert_eq!(called(&*foreign, 2).unwrap(), expected);
    assert_eq!(called(&*foreign, 1).unwrap_err(), called(&*direct, 1).unwrap_err());
    let nine = [Shaped { dims: &[], values: TensorRef::F32(&[]) }; 9];
    let refused = foreign.call("route", &nine, &mut []).unwrap_err();
    assert!(matches!(refused, Error::ShapeMismatch { .. }), "{refused}");
}

#[test]
fn what_is_read_of_the_hyperparameters_there_is_known_here() {
    let [_, foreign] = both::<dyn Mixer>();
    let read = |call: &dyn Fn(&Config)| {
        let config = config();
        call(&config);
        config.unread().map(str::to_owned).collect::<Vec<_>>()
    };
    let state = |config: &Config| {
        foreign.state(&LayerRef { index: 3, config }).unwrap();
    };
    assert_eq!(read(&state), ["eps", "misspelt", "theta"]);
    let trace = |config: &Config| {
        let mut builder = builder();
        let x = builder.input("x", Spec::f32([Dim::TOKENS, 8.into()])).unwrap();
        foreign.trace(&mut builder, &[x], &LayerRef { index: 3, config }).unwrap();
    };
    assert_eq!(read(&trace), ["misspelt", "theta", "width"]);
    let [_, foreign] = both::<dyn RotaryEmbedding>();
    let rotation = |config: &Config| {
        foreign.rotation(config).unwrap();
    };
    assert_eq!(read(&rotation), ["eps", "misspelt", "width"]);
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
    check::<dyn MoeRouter>(&[("call", &|part| called(part, 2).err())]);
    check::<dyn RotaryEmbedding>(&[("rotation", &|part| part.rotation(&config()).err())]);
}
