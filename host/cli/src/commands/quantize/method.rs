//! Ways to write a model in fewer bits, as a person names them.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jackfield_engine::model::gguf::GgufWriter;
use jackfield_engine::quantize::{Calibrated, Recipe, SensitiveLayers, Weighed, quantize, scan};

use crate::args::Quantize;
use crate::progress::Bar;
use crate::setup::Session;

/// One way to write a model: `FORMAT`, `FORMAT+COMPRESSOR`, `FORMAT+mixed` or all three.
pub(super) struct Method<'a> {
    pub(super) name: &'a str,
    format: &'a str,
    compressor: Option<&'a str>,
    is_mixed: bool,
}

impl<'a> Method<'a> {
    pub(super) fn parse(name: &'a str) -> Result<Self> {
        let mut parts = name.split('+');
        let format = parts.next().unwrap_or_default();
        let (mut compressor, mut is_mixed) = (None, false);
        for part in parts {
            match (part, compressor) {
                (MIXED, _) => is_mixed = true,
                (_, None) => compressor = Some(part),
                (_, Some(_)) => bail!("--to {name}: expected one compressor, found two"),
            }
        }
        Ok(Self { name, format, compressor, is_mixed })
    }
}

/// What is quantized, and what there is to learn on.
pub(super) struct Original<'a> {
    pub(super) path: &'a Path,
    pub(super) weighed: &'a Weighed,
    pub(super) text: Option<&'a str>,
}

impl Original<'_> {
    /// Writes the model in one way, unless a table has it already, and returns where it is.
    pub(super) fn write(
        &self,
        session: &Session,
        args: &Quantize,
        method: &Method<'_>,
    ) -> Result<PathBuf> {
        let is_table = args.to.len() > 1;
        let to = match is_table {
            false => args.out.clone(),
            true if GgufWriter::knows(method.format) => {
                args.out.join(format!("{}.gguf", method.name))
            }
            true => args.out.join(method.name),
        };
        if is_table {
            std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
            if to.exists() {
                return Ok(to);
            }
        }
        let mut others = args.others.clone();
        if method.is_mixed {
            others.extend(self.sensitive(session, args, method)?);
        }
        let calibrated = method.compressor.map(|compressor| {
            self.calibrated(method, compressor, (args.window, args.calibration_windows))
        });
        let calibrated = calibrated.transpose()?;
        let recipe = self.recipe(session, args, method, (&others, calibrated))?;
        let mut bar = Bar::elements(session.is_json);
        let mut progress = |done, total| {
            bar.show(method.name, done, Some(total));
            true
        };
        let (wiring, registry) = (&session.wiring, session.registry());
        let made = quantize(self.path, &to, &recipe, wiring, &registry, &mut progress);
        bar.clear();
        let made = made.with_context(|| format!("quantization of {}", self.path.display()))?;
        if made.reused > 0 {
            let (name, reused) = (method.name, made.reused);
            writeln!(std::io::stderr(), "{name}: went on after {reused} weights that were done")?;
        }
        Ok(to)
    }

    fn recipe<'r>(
        &self,
        session: &Session,
        args: &'r Quantize,
        method: &Method<'r>,
        (others, calibrated): (&'r [(String, String)], Option<Calibrated<'r>>),
    ) -> Result<Recipe<'r>> {
        let (format, tokenizer) = (method.format, args.tokenizer.as_deref());
        let threads = session.load_options()?.threads;
        Ok(Recipe { format, others, tokenizer, calibrated, threads })
    }

    fn calibrated<'r>(
        &'r self,
        method: &Method<'_>,
        compressor: &'r str,
        (window, windows_max): (usize, usize),
    ) -> Result<Calibrated<'r>> {
        let name = method.name;
        let text = self.text.with_context(|| {
            format!("--to {name}: expected --calibration FILE, a text to learn activations on")
        })?;
        Ok(Calibrated { compressor, text, window, windows_max })
    }

    /// The weights that keep more bits, and their format: those of the file, which a scan makes if there is none.
    fn sensitive(
        &self,
        session: &Session,
        args: &Quantize,
        method: &Method<'_>,
    ) -> Result<Vec<(String, String)>> {
        let chosen = match args.sensitive.exists() {
            true => SensitiveLayers::read(&args.sensitive, self.weighed)?,
            false => {
                let windows = (args.window, args.calibration_windows.div_ceil(SCAN_PART));
                let calibrated = Some(self.calibrated(method, "", windows)?);
                let recipe = self.recipe(session, args, method, (&args.others, calibrated))?;
                let mut bar = Bar::elements(session.is_json);
                let mut progress = |done, total| {
                    bar.show("scanning", done, Some(total));
                    true
                };
                let (wiring, registry) = (&session.wiring, session.registry());
                let found = scan(self.path, &recipe, wiring, &registry, &mut progress);
                bar.clear();
                let found = found.with_context(|| format!("scan of {}", self.path.display()))?;
                let layers =
                    SensitiveLayers::choose(self.weighed, method.format, args.share, found);
                layers.write(&args.sensitive)?;
                layers.chosen
            }
        };
        Ok(chosen.into_iter().map(|name| (name, args.high.clone())).collect())
    }
}

/// What a method is called whose sensitive weights keep more bits.
const MIXED: &str = "mixed";
/// A scan runs the model once for each weight: on one of so many windows.
const SCAN_PART: usize = 4;
