//! What the command line says.

use std::path::PathBuf;

use crate::train::{SHAPES, Shape};

/// Shown by `--help`, and after a mistake.
pub(crate) const HELP: &str = "\
Jackfield beside other engines, in one run.

Usage: peers [OPTIONS]

  --models A,B     names of `jackfield model ls`, or GGUF files; NAME:q4_0 is requantized by
                   llama-quantize [SmolLM2-135M-Instruct,gemma-3-270m,qwen2.5-coder-0.5b-instruct]
  --engines A,B    llama.cpp, mistral.rs, jackfield; with --train pytorch, candle-nn, jackfield [all]
  --threads 1,2    numbers of threads, each measured by itself [1,2]
  --prefill N      tokens of the prompt [512]
  --decode N       tokens that are generated [64]
  --contexts N,M   decodes after so many tokens of context, each by itself; no prefill is shown
  --streams N,M    servers instead: tokens/s of so many requests at a time, each by itself
  --arrival N      with --streams: when a prompt of N tokens is answered that comes among others
  --shared N       with --streams: what the same first N tokens cost the second time
  --train A,B      training steps instead: models of 2.4M and 11M parameters, each by itself
  --learn FILE     losses on a text instead, beside PyTorch from the same weights; --runs are seeds
  --steps N        with --learn [400]
  --neighbours N   threads that compute for nobody meanwhile [0]
  --runs N         how often each engine has its turn; medians are reported [3]";

/// What to compare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) models: Vec<String>,
    pub(crate) engines: Vec<String>,
    pub(crate) threads: Vec<usize>,
    pub(crate) prefill: usize,
    pub(crate) decode: usize,
    /// Empty: one table with prefill and decode.
    pub(crate) contexts: Vec<usize>,
    /// Empty: no servers.
    pub(crate) streams: Vec<usize>,
    pub(crate) arrival: Option<usize>,
    pub(crate) shared: Option<usize>,
    /// Empty: no training.
    pub(crate) train: Vec<Shape>,
    pub(crate) learn: Option<PathBuf>,
    pub(crate) steps: usize,
    pub(crate) neighbours: usize,
    pub(crate) runs: usize,
}

const ENGINES: [&str; 5] = ["llama.cpp", "mistral.rs", "jackfield", "pytorch", "candle-nn"];
const MODELS: [&str; 3] = ["SmolLM2-135M-Instruct", "gemma-3-270m", "qwen2.5-coder-0.5b-instruct"];

impl Args {
    /// Reads options; `None` if help is asked for.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let mut args = Self {
            models: owned(&MODELS),
            engines: owned(&ENGINES),
            threads: vec![1, 2],
            prefill: 512,
            decode: 64,
            contexts: Vec::new(),
            streams: Vec::new(),
            arrival: None,
            shared: None,
            train: Vec::new(),
            learn: None,
            steps: 400,
            neighbours: 0,
            runs: 3,
        };
        let mut words = words;
        while let Some(option) = words.next() {
            if option == "--help" || option == "-h" {
                return Ok(None);
            }
            let value = words.next().ok_or_else(|| format!("{option}: expected a value"))?;
            let list = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
            match &*option {
                "--models" => args.models = list(),
                "--engines" => args.engines = list(),
                "--threads" => args.threads = counts(&option, &list())?,
                "--contexts" => args.contexts = counts(&option, &list())?,
                "--streams" => args.streams = counts(&option, &list())?,
                "--train" => args.train = shapes(&option, &list())?,
                "--learn" => args.learn = Some(PathBuf::from(&value)),
                "--steps" => args.steps = count(&option, &value)?,
                "--arrival" => args.arrival = Some(count(&option, &value)?),
                "--shared" => args.shared = Some(count(&option, &value)?),
                "--neighbours" => args.neighbours = count(&option, &value)?,
                "--prefill" => args.prefill = count(&option, &value)?,
                "--decode" => args.decode = count(&option, &value)?,
                "--runs" => args.runs = count(&option, &value)?,
                _ => return Err(format!("expected an option, found `{option}`")),
            }
        }
        match args.engines.iter().find(|name| !ENGINES.contains(&&***name)) {
            Some(name) => Err(format!("expected engines of {ENGINES:?}, found `{name}`")),
            None => Ok(Some(args)),
        }
    }
}

fn shapes(option: &str, names: &[String]) -> Result<Vec<Shape>, String> {
    let shape = |name: &String| {
        let found = SHAPES.into_iter().find(|shape| shape.name == name);
        found.ok_or_else(|| format!("{option}: expected one of {SHAPES:?}, found `{name}`"))
    };
    names.iter().map(shape).collect()
}

fn counts(option: &str, values: &[String]) -> Result<Vec<usize>, String> {
    values.iter().map(|value| count(option, value)).collect()
}

fn count(option: &str, value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("{option}: expected a number above 0, found `{value}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Args>, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_read_and_mistakes_are_told() {
        let args = parse("--models a.gguf --threads 1,2,4 --contexts 8 --runs 5");
        let args = args.unwrap_or_default();
        assert_eq!(
            args.map(|args| (args.models, args.threads, args.contexts, args.runs)),
            Some((vec!["a.gguf".to_owned()], vec![1, 2, 4], vec![8], 5))
        );
        assert_eq!(parse("--help"), Ok(None));
        for mistake in
            ["--threads 0", "--threads x", "--runs", "--engine llama.cpp", "--engines vllm"]
        {
            assert!(parse(mistake).is_err(), "{mistake}");
        }
    }
}
