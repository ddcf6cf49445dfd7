//! Compressors over the boundary.

use plugin_api::prelude::*;

use crate::rig::{both, import, told};
use crate::subject::Subject;

impl Compressor for Subject {
    fn needs_moments(&self) -> bool {
        self.at_most_panics("needs_moments");
        self.lies != "moments"
    }

    fn compress(&mut self, products: &Products<'_>) -> Result<Compressed> {
        self.at("compress")?;
        let cols = products.input.mean_abs.len();
        let input_scale =
            if products.can_scale { products.input.max_abs.to_vec() } else { Vec::new() };
        let weight = |weight: &Matrix<'_>| match products.grid {
            Some(grid) => {
                let groups = weight.values.len() / grid.group;
                let mins = if grid.has_min { groups } else { 0 };
                let scales = vec![products.input.moments[0]; groups];
                Chosen::Codes {
                    codes: vec![grid.code_max(); weight.values.len()],
                    scales,
                    mins: vec![0.5; mins],
                }
            }
            None => Chosen::Values(weight.values.iter().map(|x| x * weight.rows as f32).collect()),
        };
        let mut weights: Vec<Chosen> = products.weights.iter().map(weight).collect();
        if self.lies == "weights" {
            weights.pop();
        } else if self.lies == "values" {
            weights = vec![Chosen::Values(vec![f32::NAN; cols])];
        }
        Ok(Compressed { input_scale, weights })
    }

    fn rotate(&mut self, channels: Channels, width: usize, rows: &mut [f32]) -> Result<bool> {
        self.at("rotate")?;
        if channels == Channels::Value {
            return Ok(false);
        }
        rows.chunks_mut(width).for_each(<[f32]>::reverse);
        Ok(true)
    }
}

fn products(grid: Option<Grid>, can_scale: bool) -> Products<'static> {
    let input =
        Input { tokens: 9, mean_abs: &[1.0; 16], max_abs: &[2.0; 16], moments: &[0.25; 256] };
    let weight =
        |name, rows: usize| Matrix { name, rows, cols: 16, values: &[3.0; 32][..16 * rows] };
    Products { input, weights: vec![weight("a", 2), weight("b", 1)], grid, can_scale }
}

#[test]
fn compressors_behave_as_the_original() {
    let grid = Grid { bits: 4, group: 16, zero_point: 8, has_min: true, is_half: true };
    let answers = both::<dyn Compressor>().map(|mut compressor| {
        assert!(compressor.needs_moments());
        [(Some(grid), true), (None, false)]
            .map(|(grid, can_scale)| compressor.compress(&products(grid, can_scale)).unwrap())
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][0].input_scale, [2.0; 16]);
    assert_eq!(answers[0][1].weights[0], Chosen::Values(vec![6.0; 32]));
}

#[test]
fn answers_that_do_not_fit_are_faults_of_the_compressor() {
    for lie in ["weights", "values"] {
        let (mut compressor, watch) = import::<dyn Compressor>(&told("lies", lie));
        let error = compressor.compress(&products(None, false)).unwrap_err();
        watch.expect("what a compressor answers");
        assert_eq!(error, watch.faults()[0], "{lie}");
    }
    let (mut compressor, watch) = import::<dyn Compressor>(&told("panics", "compress"));
    let error = compressor.compress(&products(None, false)).unwrap_err();
    watch.expect("panicked: on purpose, in compress");
    assert_eq!(error, watch.faults()[0]);
    let (mut compressor, watch) = import::<dyn Compressor>(&told("fails", "compress"));
    let error = compressor.compress(&products(None, false)).unwrap_err();
    assert_eq!(error, crate::subject::denied("compress"));
    assert!(watch.faults().is_empty(), "a refusal is no fault");
    // What the host asks is checked before it goes out.
    let mut odd = products(None, false);
    odd.input.moments = &[1.0];
    assert!(matches!(compressor.compress(&odd), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn rows_are_turned_as_by_the_original() {
    for mut compressor in both::<dyn Compressor>() {
        let mut rows = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(compressor.rotate(Channels::Value, 2, &mut rows), Ok(false));
        assert_eq!(rows, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(compressor.rotate(Channels::Stream, 2, &mut rows), Ok(true));
        assert_eq!(rows, [2.0, 1.0, 4.0, 3.0]);
    }
    let (mut compressor, watch) = import::<dyn Compressor>(&told("panics", "rotate"));
    let error = compressor.rotate(Channels::Stream, 2, &mut [0.0; 4]).unwrap_err();
    watch.expect("panicked: on purpose, in rotate");
    assert_eq!(error, watch.faults()[0]);
}
