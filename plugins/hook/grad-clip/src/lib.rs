//! Grad clip: scales the gradient of all parameters down where it is longer than a limit.
//!
//! Source: Pascanu et al., "On the difficulty of training recurrent neural networks", arXiv:1211.5063,
//! algorithm 1.

use plugin_api::prelude::*;

/// Scales by `max_norm / norm` where the norm is greater.
#[derive(Debug)]
pub struct GradClip {
    max_norm: f64,
}

impl Capability for GradClip {
    const NAME: &'static str = "grad-clip";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { max_norm: config.number_or("max_norm", 1.0, 1e-12..=1e12)? })
    }
}

impl Hook for GradClip {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        on.train_after_backward(move |event, _| {
            // A norm that is no number is left to others.
            if event.grad_norm > self.max_norm && event.grad_norm.is_finite() {
                event.grad_scale *= self.max_norm / event.grad_norm;
            }
            Flow::Continue
        });
        Ok(())
    }
}

export_plugin!(GradClip);

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use plugin_api::events::TrainAfterBackward;
    use plugin_api::testing::hook::{emit, subscribe, suite};
    use plugin_api::testing::machine::Machine;

    use super::*;

    #[test]
    fn passes_the_contract_suite() {
        suite::<GradClip>(&Config::new());
    }

    #[test]
    fn shortens_what_is_longer_than_the_limit() {
        #[rustfmt::skip]
        let cases = [
            // norm          scale
            (0.0,           1.0),
            (2.0,           1.0),
            (8.0,           0.25),
            (f64::INFINITY, 1.0),
            (f64::NAN,      1.0),
        ];
        let mut on = subscribe::<GradClip>(&Config::new().with("max_norm", 2.0));
        for (grad_norm, expected) in cases {
            let lent = PhantomData;
            let mut event =
                TrainAfterBackward { step: 0, loss: 1.0, grad_norm, grad_scale: 1.0, lent };
            let flow = emit::<TrainAfterBackward<'static>>(&mut on, &mut event, &Machine::new());
            assert_eq!((flow, event.grad_scale), (Flow::Continue, expected), "{grad_norm}");
        }
    }
}
