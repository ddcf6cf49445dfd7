//! The table of one model and number of threads.

use std::collections::BTreeMap;
use std::fmt;

use crate::engine::{Cost, Failure, Speed, Task};
use crate::limits;

/// What the engines showed.
pub(crate) struct Report {
    title: String,
    threads: usize,
    /// In the order in which engines had their turn.
    engines: Vec<String>,
    speeds: BTreeMap<String, Vec<Speed>>,
    failures: BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn new(model: &str, task: &Task<'_>) -> Self {
        let Task { threads, prefill, decode, .. } = task;
        let what = if task.is_context { "tokens of context" } else { "tokens" };
        let title = format!("{model}, {threads} threads, {prefill} {what} + {decode}");
        let (engines, speeds, failures) = Default::default();
        Self { title, threads: *threads, engines, speeds, failures }
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    pub(crate) fn add(&mut self, engine: &str, speed: &Speed) {
        self.list(engine);
        self.speeds.entry(engine.to_owned()).or_default().push(*speed);
    }

    pub(crate) fn fail(&mut self, engine: &str, failure: &Failure) {
        self.list(engine);
        self.failures.insert(engine.to_owned(), failure.to_string());
    }

    fn list(&mut self, engine: &str) {
        if !self.engines.iter().any(|known| known == engine) {
            self.engines.push(engine.to_owned());
        }
    }

    /// Medians of prefill and decode.
    fn medians(&self, engine: &str) -> Option<[f64; 2]> {
        let speeds = self.speeds.get(engine)?;
        let of = |get: fn(&Speed) -> f64| median(speeds.iter().map(get));
        Some([of(|speed| speed.prefill)?, of(|speed| speed.decode)?])
    }

    /// What a token costs; the bandwidth is the median of what was measured.
    fn cost(&self) -> Option<Cost> {
        let costs: Vec<Cost> = self.speeds.values().flatten().filter_map(|s| s.cost).collect();
        let bandwidth = median(costs.iter().map(|cost| cost.bandwidth))?;
        costs.first().map(|cost| Cost { bandwidth, ..*cost })
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A number with so many digits behind its point; a dash for none.
fn figure(x: f64, digits: usize) -> String {
    if x.is_nan() { "–".to_owned() } else { format!("{x:.digits$}") }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        let first = self.engines.first().map_or("", |first| first);
        let base = self.medians(first);
        writeln!(
            f,
            "| engine | prefill | × {first} | decode | × {first} |\n|---|---|---|---|---|"
        )?;
        for engine in &self.engines {
            let Some([prefill, decode]) = self.medians(engine) else {
                let why = self.failures.get(engine).map_or("", |why| why);
                writeln!(f, "| {engine} | {why} | | | |")?;
                continue;
            };
            let ratio = |of: f64, i: usize| base.map_or(f64::NAN, |base| of / base[i]);
            let (a, b) = (figure(ratio(prefill, 0), 2), figure(ratio(decode, 1), 2));
            let (prefill, decode) = (figure(prefill, 0), figure(decode, 1));
            writeln!(f, "| {engine} | {prefill} | {a} | {decode} | {b} |")?;
        }
        let Some(cost) = self.cost() else { return Ok(()) };
        let peak = limits::peak_macs();
        let decode = cost.bandwidth / cost.decode_bytes;
        let prefill = peak * self.threads as f64 / cost.prefill_macs;
        writeln!(f, "| limit | {prefill:.0} | | {decode:.1} | |\n")?;
        let (gigabytes, gigamacs) = (cost.bandwidth / 1e9, peak / 1e9);
        write!(
            f,
            "Decode reads {:.1} MB a token at {gigabytes:.1} GB/s at best; ",
            cost.decode_bytes / 1e6
        )?;
        write!(
            f,
            "prefill takes {:.0} million multiply-adds a token of ",
            cost.prefill_macs / 1e6
        )?;
        writeln!(f, "{gigamacs:.0} billion a second and core.")
    }
}
