//! `jackfield quantize`: models in fewer bits, with what that loses.

mod method;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use jackfield_engine::Engine;
use jackfield_engine::generate::divergence::{Divergence, diverge};
use jackfield_engine::generate::perplexity::Windows;
use jackfield_engine::quantize::Weighed;
use serde_json::{Value, json};

use super::{adapter, checkpoint, evaluate};
use crate::args::Quantize;
use crate::progress::Bar;
use crate::setup::Session;
use method::{Method, Original};

/// Writes, measures and prints.
pub(crate) fn run(session: &Session, args: &Quantize) -> Result<()> {
    let windows = Windows::Sliding { length: args.window, stride: args.window };
    windows.check(usize::MAX)?;
    let texts = match &args.text {
        Some(file) => evaluate::read(file, "text")?,
        None => vec![adapter::TEXT.to_owned()],
    };
    session.wiring.check(&session.registry())?;
    let name = session.model_name()?;
    let model = match Path::new(&name).is_dir() {
        true => checkpoint::source(Path::new(&name))?,
        false => session.fetch(&name)?,
    };
    let learnt = args.calibration.as_ref().map(|file| evaluate::read(file, "text")).transpose()?;
    let learnt = learnt.map(|texts| texts.join("\n"));
    let methods: Vec<Method<'_>> =
        args.to.iter().map(|method| Method::parse(method)).collect::<Result<_>>()?;
    let weighed = Weighed::of(&model)?;
    let original = Original { path: &model, weighed: &weighed, text: learnt.as_deref() };
    let mut made = Vec::new();
    for method in &methods {
        made.push((method.name, original.write(session, args, method)?));
    }
    let mut measured = Measured { session, args, texts, windows, reference: None };
    let mut rows = vec![measured.original(&model, &weighed)?];
    for (method, path) in made {
        rows.push(measured.row(method, &path, &weighed)?);
    }
    print(session, &rows)
}

/// One model of the table.
struct Row {
    name: String,
    path: PathBuf,
    weighed: Weighed,
    found: Divergence,
    /// Which of the two times is its own.
    time: usize,
    /// Formats with less than 16 bits that the model had before.
    before: Vec<String>,
}

/// Measures models beside the original.
struct Measured<'a> {
    session: &'a Session,
    args: &'a Quantize,
    texts: Vec<String>,
    windows: Windows,
    reference: Option<Engine>,
}

impl Measured<'_> {
    fn engine(&self, path: &Path) -> Result<Engine> {
        let mut options = self.session.load_options()?;
        (options.context_length_max, options.num_seqs_max) = (self.args.window, 1);
        options.logit_rows_max = options.logit_rows_max.max(evaluate::ROWS);
        options.adapter = None;
        self.session.engine_of(path, &options)
    }

    /// The model that was read, beside itself.
    fn original(&mut self, model: &Path, weighed: &Weighed) -> Result<Row> {
        let name = format!("original ({})", formats(weighed).join(", "));
        self.reference = Some(self.engine(model)?);
        let found = self.diverge(self.engine(model)?)?;
        let (path, weighed, before) = (model.to_owned(), weighed.clone(), Vec::new());
        Ok(Row { name, path, weighed, found, time: 0, before })
    }

    fn row(&mut self, method: &str, path: &Path, original: &Weighed) -> Result<Row> {
        let found = self.diverge(self.engine(path)?)?;
        let before = original.quantized().map(str::to_owned).collect();
        let (name, path, weighed) = (method.to_owned(), path.to_owned(), Weighed::of(path)?);
        Ok(Row { name, path, weighed, found, time: 1, before })
    }

    fn diverge(&mut self, mut engine: Engine) -> Result<Divergence> {
        let Some(reference) = &mut self.reference else { bail!("the original is measured first") };
        let bar = Bar::steps(self.session.is_json);
        let (began, mut all) = (Instant::now(), Divergence::default());
        for text in &self.texts {
            let tokens = evaluate::tokens(reference, text);
            let left = self.args.windows_max.saturating_sub(all.found.windows);
            if left == 0 {
                break;
            }
            let now = || began.elapsed().as_secs_f64();
            let engines = [&mut *reference, &mut engine];
            let found = diverge(engines, &tokens, self.windows, &now, &mut |done, found| {
                let message = format!("tokens, KL {:.5}", found.kl_mean());
                bar.say(done as u64, tokens.len() as u64, message);
                found.found.windows < left
            })?;
            all.join(&found);
        }
        bar.clear();
        if all.found.tokens == 0 {
            bail!("--text: expected a text of at least two tokens");
        }
        Ok(all)
    }
}

/// Formats that most numbers are in.
fn formats(weighed: &Weighed) -> Vec<String> {
    let few = weighed.elements / 50;
    let most = weighed.formats.iter().filter(|(_, elements)| **elements >= few);
    most.map(|(format, _)| format.clone()).collect()
}

impl Row {
    fn tokens_per_second(&self) -> f64 {
        self.found.found.tokens as f64 / self.found.seconds[self.time].max(1e-9)
    }

    fn json(&self) -> Value {
        let Self { name, path, weighed, found, before, .. } = self;
        json!({
            "method": name, "path": path, "bits_per_weight": weighed.bits_per_weight(),
            "size_bytes": weighed.size_bytes, "weight_bytes": weighed.weight_bytes,
            "formats": weighed.formats, "perplexity": found.found.perplexity(),
            "perplexity_standard_error": found.found.standard_error(),
            "kl": found.kl_mean(), "kl_max": found.kl_max, "same_likeliest": found.same_likeliest(),
            "tokens": found.found.tokens, "tokens_per_second": self.tokens_per_second(),
            "requantized_from": before,
        })
    }

    fn line(&self) -> String {
        let Self { weighed, found, before, .. } = self;
        let (bits, megabytes) = (weighed.bits_per_weight(), weighed.weight_bytes as f64 / 1e6);
        let (perplexity, kl) = (found.found.perplexity(), found.kl_mean());
        let (same, speed) = (100.0 * found.same_likeliest(), self.tokens_per_second());
        let mut name = self.name.clone();
        if !before.is_empty() {
            name = format!("{name}, re-quantized from {}", before.join(", "));
        }
        format!(
            "| {bits:>6.2} | {megabytes:>9.2} | {perplexity:>10.4} | {kl:>9.6} | {same:>6.2} | {speed:>8.1} | {name} |"
        )
    }
}

fn print(session: &Session, rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if session.is_json {
        let rows: Vec<Value> = rows.iter().map(Row::json).collect();
        return Ok(writeln!(out, "{}", json!({ "model": session.model_name()?, "rows": rows }))?);
    }
    writeln!(out, "|   bits |        MB | perplexity |        KL | same % | tokens/s | weights |")?;
    writeln!(out, "|-------:|----------:|-----------:|----------:|-------:|---------:|---------|")?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", row.line()))?;
    let tokens = rows.first().map_or(0, |row| row.found.found.tokens);
    Ok(writeln!(out, "over {tokens} tokens")?)
}
