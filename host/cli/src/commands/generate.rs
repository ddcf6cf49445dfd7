//! `jackfield generate`: one prompt, one answer.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use jackfield_engine::model::Message;
use jackfield_engine::{Engine, Output, Prompt, Request, Stats};
use plugin_api::Value;
use plugin_api::kinds::decoding_strategy::FinishReason;
use serde_json::json;

use crate::args::{Generate, Sampling};
use crate::board;
use crate::commands::plugin::config_of;
use crate::memory::{self, Remembered};
use crate::setup::Session;

/// Answers one prompt, as text while it grows or as one JSON object.
pub(crate) fn run(session: &Session, args: &Generate) -> Result<()> {
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => read_standard_input()?,
    };
    let mut engine = session.engine(&session.load_options()?)?;
    let _orders = board::take_orders(session);
    let mut recalled = None;
    let prompt = if args.chat {
        let mut messages = conversation(args.sampling.system.as_deref(), &prompt);
        if let Some(id) = &args.sampling.session {
            let found = Remembered::open(session, &engine, id)?.recall(&engine, &messages)?;
            messages = found.1;
            recalled = Some(found.0);
        }
        chat_prompt(&engine, &messages)?
    } else if args.sampling.session.is_some() {
        bail!("--session: expected --chat beside it: memories are of conversations");
    } else if args.raw {
        Prompt::Raw(prompt)
    } else {
        Prompt::Text(prompt)
    };
    let request = request(session, prompt, &args.sampling)?;
    let answer = answer(&mut engine, request, !session.is_json)?;
    session.bus.flush();
    report(session, &engine, &answer)?;
    recalled.map_or(Ok(()), |recalled| memory::remember(recalled, &answer.text))
}

/// What came out of a request.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) reason: FinishReason,
    pub(crate) stats: Stats,
}

/// Runs a request to its end, printing its text as it comes.
pub(crate) fn answer(engine: &mut Engine, request: Request, is_shown: bool) -> Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut answer = Answer {
        text: String::new(),
        tokens: Vec::new(),
        reason: FinishReason::Aborted,
        stats: Stats::default(),
    };
    let (mut failed, mut printed) = (None, Ok(()));
    engine.submit(request)?;
    engine.run_to_end(&mut |output| {
        let shown = match output {
            Output::Token { token, text, .. } => {
                answer.tokens.push(token);
                text
            }
            Output::Finished { reason, text, answer: whole, stats, error, .. } => {
                (answer.reason, answer.stats) = (reason, stats);
                whole.clone_into(&mut answer.text);
                failed = error.cloned();
                text
            }
        };
        if is_shown && printed.is_ok() {
            printed = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
        }
    })?;
    printed?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(answer),
    }
}

/// A request with the parameters that the command line gave.
pub(crate) fn request(session: &Session, prompt: Prompt, sampling: &Sampling) -> Result<Request> {
    let mut request = Request::new(prompt);
    // A flag, else what the configuration gives the plugin, else what suits a terminal.
    let number = |flag: Option<f32>, plugin: &str, key: &str, default: f32| {
        let is_configured = session.wiring.table(plugin).is_some_and(|table| table.has(key));
        flag.or((!is_configured).then_some(default)).map(Value::from)
    };
    let temperature =
        number(sampling.temperature, "temperature", "temperature", DEFAULT_TEMPERATURE);
    let numbers = [
        ("temperature", temperature),
        ("top_p", number(sampling.top_p, "top-p", "top_p", DEFAULT_TOP_P)),
        ("min_p", sampling.min_p.map(Value::from)),
        ("repetition_penalty", sampling.repetition_penalty.map(Value::from)),
        ("presence_penalty", sampling.presence_penalty.map(Value::from)),
        ("frequency_penalty", sampling.frequency_penalty.map(Value::from)),
        ("top_k", sampling.top_k.map(Value::from)),
        ("max_tokens", sampling.max_tokens.map(Value::from)),
        ("seed", sampling.seed.map(|seed| Value::Int(seed as i64))),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            request.params.set(name, value);
        }
    }
    if !sampling.stop.is_empty() {
        let stops = sampling.stop.iter().map(|text| Value::from(text.as_str()));
        request.params.set("stop", Value::List(stops.collect()));
    }
    match &sampling.strategy {
        _ if sampling.greedy => request = request.strategy("greedy"),
        Some(name) => request = request.strategy(name),
        None => {}
    }
    if !sampling.strategy_option.is_empty() {
        let options = config_of("--strategy-option", &sampling.strategy_option)?;
        request.params.set("decoding_options", Value::Table(options));
    }
    if let Some((key, grammar)) = constraint(sampling)? {
        request.params.set(key, grammar);
    }
    Ok(request)
}

/// What the answer has to be: the parameter and its value.
fn constraint(sampling: &Sampling) -> Result<Option<(&'static str, String)>> {
    let read = |key, path: &PathBuf| {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Some((key, text)))
    };
    match (&sampling.json_schema, &sampling.grammar, &sampling.regex) {
        (Some(path), _, _) => read("guided_json", path),
        (_, Some(path), _) => read("guided_grammar", path),
        (_, _, Some(pattern)) => Ok(Some(("guided_regex", pattern.clone()))),
        _ => Ok(None),
    }
}

/// What people at a terminal expect of small models: mostly the likeliest, now and then another.
const DEFAULT_TEMPERATURE: f32 = 0.2;
const DEFAULT_TOP_P: f32 = 0.9;

/// A conversation of one question.
pub(crate) fn conversation(system: Option<&str>, question: &str) -> Vec<Message> {
    let system = system.map(|text| Message::new("system", text));
    system.into_iter().chain([Message::new("user", question)]).collect()
}

/// The text that the model's chat template makes of a conversation.
pub(crate) fn chat_prompt(engine: &Engine, messages: &[Message]) -> Result<Prompt> {
    let model = engine.model();
    let Some(template) = &model.chat_template else {
        let [.., last] = messages else { bail!("conversation: expected a message, found none") };
        return Ok(Prompt::Text(last.content.as_str().unwrap_or_default().to_owned()));
    };
    let token = |id: Option<u32>| id.and_then(|id| model.tokenizer.id_to_token(id)).unwrap_or("");
    let (bos, eos) = (token(model.tokenizer.bos()), token(model.tokenizer.eos()));
    Ok(Prompt::Templated(template.render(messages, true, None, bos, eos)?))
}

fn read_standard_input() -> Result<String> {
    if std::io::stdin().is_terminal() {
        bail!("prompt: expected an argument or text on standard input, found neither");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("prompt: standard input")?;
    Ok(text)
}

fn report(session: &Session, engine: &Engine, answer: &Answer) -> Result<()> {
    let stats = answer.stats;
    let seconds = |us: u64| us as f64 / 1e6;
    let decode_us = stats.total_us.saturating_sub(stats.ttft_us).max(1);
    let decode_rate = stats.tokens.saturating_sub(1) as f64 / seconds(decode_us);
    let prefill_rate = stats.prompt_tokens as f64 / seconds(stats.ttft_us.max(1));
    let reason = format!("{:?}", answer.reason).to_lowercase();
    let mut out = std::io::stdout().lock();
    if session.is_json {
        let report = json!({
            "text": answer.text,
            "token_ids": answer.tokens,
            "finish_reason": reason,
            "prompt_tokens": stats.prompt_tokens,
            "tokens": stats.tokens,
            "time_to_first_token_seconds": seconds(stats.ttft_us),
            "total_seconds": seconds(stats.total_us),
            "prefill_tokens_per_second": prefill_rate,
            "decode_tokens_per_second": decode_rate,
            "plan_digest": engine.digest().to_string(),
        });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out)?;
    if std::io::stderr().is_terminal() {
        writeln!(
            std::io::stderr(),
            "[{} + {} tokens · first after {:.0} ms · {decode_rate:.0} tokens/s · {reason} · plan {:.12}]",
            stats.prompt_tokens,
            stats.tokens,
            stats.ttft_us as f64 / 1e3,
            engine.digest().to_string(),
        )?;
    }
    Ok(())
}
