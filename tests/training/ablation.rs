//! What `left-spin-smooth` changes of training, beside the plain residual.

use jackfield_engine::train::Parameters;

use crate::{architecture, batches, loader, setup, trainer_with};

/// Prints a table: learning rate, residual, runs that stayed finite and got better, mean of their last losses.
#[test]
#[ignore = "half a minute: prints a table, for the plugin's README"]
#[allow(clippy::print_stdout, reason = "the table is what the run is for")]
fn left_spin_smooth_beside_the_plain_residual() {
    println!("rate      residual            better  last loss");
    for learning_rate in [3e-3, 3e-2, 1e-1, 3e-1] {
        for residual in ["add", "left-spin-smooth"] {
            let (mut better, mut sum) = (0, 0.0);
            for seed in 0..5 {
                let setup = setup("cpu").with("residual", residual).with("lr-schedule", "constant");
                let parameters = Parameters::random(&architecture(), seed).unwrap();
                let mut trainer = trainer_with(&setup, parameters, learning_rate);
                let mut text = loader();
                let mut losses = Vec::new();
                while losses.len() < 60 {
                    match trainer.step(&batches(&mut text)) {
                        Ok(report) => losses.push(report.loss),
                        Err(_) => break,
                    }
                }
                let last = losses.iter().rev().take(10).sum::<f64>() / 10.0;
                if losses.len() == 60 && last < losses[0] {
                    better += 1;
                    sum += last;
                }
            }
            let mean = sum / f64::from(better.max(1));
            println!("{learning_rate:<8}  {residual:18}  {better}/5     {mean:.3}");
        }
    }
}
