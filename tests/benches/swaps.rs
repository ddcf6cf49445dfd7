//! What swaps cost those who are being answered: one a second, every slot in turn, beside streams of
//! SmolLM2-135M-Instruct. Gaps between the tokens of a stream with and without swaps, and the time that
//! the step thread spends on a swap.
//!
//! Needs the model in `JACKFIELD_MODELS`. Run as
//! `JACKFIELD_SECONDS=600 cargo bench -p jackfield-tests --bench swaps`: as long with swaps (default
//! 60), and two minutes at most without. Compare within one run only: plugins are prepared beside the threads that
//! compute, so a machine without a core to spare shows it in its gaps.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, or fails")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jackfield_engine::{Engine, Output, Request, RequestId};
use jackfield_runtime::{SwapTarget, Swapped};
use jackfield_tests::{Setup, quantile, real_model};
use plugin_api::Config;

const STREAMS: usize = 4;

/// What one phase has measured, in milliseconds.
#[derive(Default)]
struct Phase {
    /// Between two tokens of a stream.
    gaps: Vec<f64>,
    steps: Vec<f64>,
    /// At the boundaries before them.
    boundaries: Vec<f64>,
}

fn main() {
    let file = "SmolLM2-135M-Instruct.Q4_1.gguf";
    let Some(model) = real_model("SmolLM2-135M-Instruct", file) else { return };
    let seconds = std::env::var("JACKFIELD_SECONDS").ok().and_then(|n| n.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(60));
    let setup = Setup::new("cpu");
    let mut engine = setup.load(&model).unwrap();
    answer(&mut engine, Duration::from_secs(2));
    println!("{STREAMS} streams, in ms            gap p50     p99     max    step p50     p99");
    let plain = answer(&mut engine, seconds.min(Duration::from_secs(120)));
    plain.print("no swap");

    let swapper = engine.swapper();
    let is_over = AtomicBool::new(false);
    let (swapping, swaps) = thread::scope(|scope| {
        let swaps = scope.spawn(|| swap_each_second(&swapper, &setup, &is_over));
        let phase = answer(&mut engine, seconds);
        is_over.store(true, Ordering::Relaxed);
        while !swaps.is_finished() {
            engine.boundary();
        }
        (phase, swaps.join().unwrap())
    });
    swapping.print("one swap a second");
    let idle = plain.boundaries.iter().sum::<f64>() / plain.boundaries.len() as f64;
    let work: f64 = swapping.boundaries.iter().map(|ms| ms - idle).sum();
    let (step, per_swap) = (quantile(&plain.steps, 0.5), work / swaps.len() as f64);
    println!(
        "{} swaps; on the step thread {:.1} us each ({:.2} % of a step), at most {:.1} us",
        swaps.len(),
        per_swap * 1e3,
        100.0 * per_swap / step,
        swapping.boundaries.iter().fold(0.0, |max: f64, ms| max.max(*ms)) * 1e3
    );
    let of = |f: fn(&Swapped) -> u64| {
        let all: Vec<f64> = swaps.iter().map(|swap| f(swap) as f64 / 1e3).collect();
        (quantile(&all, 0.5), quantile(&all, 1.0))
    };
    let (prepared, waited) = (of(|swap| swap.prepare_us), of(|swap| swap.wait_us));
    println!(
        "off it: prepared in {:.2} ms (at most {:.1}), taken in after {:.2} ms (at most {:.1})",
        prepared.0, prepared.1, waited.0, waited.1
    );
}

impl Phase {
    fn print(&self, name: &str) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&self.gaps, q));
        let [step50, step99] = [0.5, 0.99].map(|q| quantile(&self.steps, q));
        println!("{name:28} {p50:7.2} {p99:7.2} {max:7.2}     {step50:7.2} {step99:7.2}");
    }
}

/// Keeps the streams going for some time.
fn answer(engine: &mut Engine, time: Duration) -> Phase {
    let (start, mut phase) = (Instant::now(), Phase::default());
    let mut last: BTreeMap<RequestId, Instant> = BTreeMap::new();
    let mut next = 0_u32;
    while start.elapsed() < time {
        while engine.num_running() < STREAMS {
            next += 1;
            let prompt: Vec<u32> =
                (0..16).map(|i| 100 + (i * 7919 + next * 104_729) % 40_000).collect();
            let request =
                Request::new(prompt).with("ignore_eos", true).with("seed", i64::from(next));
            engine.submit(request.with("max_tokens", 300)).unwrap();
        }
        let before = Instant::now();
        engine.boundary();
        phase.boundaries.push(before.elapsed().as_secs_f64() * 1e3);
        let before = Instant::now();
        engine
            .step(&mut |output| {
                let now = Instant::now();
                match output {
                    Output::Token { request, .. } => {
                        let gap = last.insert(request, now).map(|before| now - before);
                        phase.gaps.extend(gap.map(|gap| gap.as_secs_f64() * 1e3));
                    }
                    Output::Finished { request, error, .. } => {
                        assert_eq!(error, None);
                        last.remove(&request);
                    }
                }
            })
            .unwrap();
        phase.steps.push(before.elapsed().as_secs_f64() * 1e3);
    }
    engine.run_to_end(&mut |_| {}).unwrap();
    phase
}

/// Replaces what fills each slot by another instance of it, slot after slot, one a second.
fn swap_each_second(swapper: &dyn SwapTarget, setup: &Setup, is_over: &AtomicBool) -> Vec<Swapped> {
    let mut swaps = Vec::new();
    let slots = swapper.slots();
    for slot in slots.iter().cycle() {
        let due = Instant::now() + Duration::from_secs(1);
        while Instant::now() < due {
            if is_over.load(Ordering::Relaxed) {
                return swaps;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let place = format!("{}/{}", slot.kind, slot.slot);
        let name = &slot.active.name;
        let made = (setup.registry.find(&slot.kind, name).unwrap().make)(&Config::new()).unwrap();
        swaps.push(swapper.swap(&place, name, made, Duration::from_secs(10)).unwrap());
    }
    swaps
}
