//! Contract suite of adapters.

use super::traced::{Scene, check_instances, check_name, check_plan, check_rows, made};
use super::{Make, make};
use crate::config::Config;
use crate::kinds::adapter::Adapter;
use crate::kinds::{Capability, Traced};
use crate::plan::{Dim, Plan, Spec};

/// Runs the whole suite.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite<T: Capability + Adapter + 'static>() {
    check_name::<T>();
    suite_of(&make::<dyn Adapter, T>);
}

/// The same for adapters that `make` makes.
///
/// # Panics
///
/// With a sentence that says which promise was broken.
pub fn suite_of(make: Make<'_, dyn Adapter>) {
    let adapter = check_instances(make);
    for [inputs, outputs, rank] in [[1, 1, 1], [7, 9, 2], [8, 63, 4], [9, 8, 16]] {
        let plan = trace_part(&*adapter, &Config::new(), [inputs, outputs, rank]);
        let y = plan.spec(plan.inputs[1].val);
        let id = adapter.semantic_id();
        assert_eq!(plan.spec(plan.outputs[0].val), y, "{id}: in the place of the product");
        check_rows(&plan);
    }
}

/// The plan over `x [tokens, inputs]` and `y [tokens, outputs]`, with the weights `lora_A.weight [rank,
/// inputs]` and `lora_B.weight [outputs, rank]`, under these hyperparameters.
///
/// # Panics
///
/// If the adapter cannot be traced.
pub fn trace<T: Capability + Adapter>(config: &Config, sizes: [u64; 3]) -> Plan {
    trace_part(&made::<T>(), config, sizes)
}

fn trace_part(part: &dyn Traced, config: &Config, [inputs, outputs, rank]: [u64; 3]) -> Plan {
    let spec = |width: u64| Spec::f32([Dim::TOKENS, width.into()]);
    let scene = Scene::new(config)
        .weight("lora_A.weight", &[rank, inputs])
        .weight("lora_B.weight", &[outputs, rank]);
    check_plan(&scene, part, &[("x", spec(inputs)), ("y", spec(outputs))])
}
