//! What is learnt beside PyTorch: the same first weights and batches, losses of steps and of held-out text.

use std::path::Path;

use super::{LENGTH, SEQUENCES, SHAPES, jackfield, pytorch};
use crate::engine::Failure;
use crate::setup;

/// A tenth of the text is held out.
const HELD_OUT: usize = 10;
/// Steps whose losses are compared one by one.
const FIRST: usize = 50;

/// Prints a line for each seed.
pub(crate) fn compare(
    text: &Path,
    seeds: usize,
    steps: usize,
    program: &Path,
) -> Result<(), Failure> {
    let shape = &SHAPES[0];
    let text = std::fs::read(text).map_err(|e| Failure(format!("{}: {e}", text.display())))?;
    let held_out = text.len() - text.len() / HELD_OUT;
    // Whole batches: every token of them counts alike on both sides.
    let batches = (text.len() - held_out).saturating_sub(1) / (SEQUENCES * LENGTH);
    let tokens = batches * SEQUENCES * LENGTH;
    if tokens == 0 {
        let found = text.len();
        return Err(Failure(format!(
            "expected {} bytes or more of text, found {found}",
            20 * SEQUENCES * LENGTH
        )));
    }
    let folder = setup::folder()?.join("learn");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("config.json"), jackfield::config(shape).to_string())?;
    std::fs::write(folder.join("text"), &text[..held_out])?;
    std::fs::write(folder.join("held-out"), &text[held_out..][..=tokens])?;
    println!("{}: {steps} steps of {SEQUENCES} × {LENGTH} tokens, {tokens} held out\n", shape.name);
    println!(
        "| seed | furthest of the first {FIRST} losses | held out, PyTorch | jackfield | difference |"
    );
    println!("|---|---|---|---|---|");
    for seed in 1..=seeds {
        let theirs = pytorch::losses(shape, &folder, seed, steps)?;
        let (ours, last) = jackfield::losses(&folder, seed, steps, program)?;
        let first = ours.iter().filter(|(step, _)| *step < FIRST);
        let furthest = first.map(|(step, loss)| (loss - theirs[*step]).abs()).fold(0.0, f64::max);
        let expected = theirs[steps];
        let difference = 100.0 * (last / expected - 1.0);
        println!("| {seed} | {furthest:.1e} | {expected:.4} | {last:.4} | {difference:+.2} % |");
    }
    Ok(())
}
