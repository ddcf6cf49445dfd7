//! `jackfield chat`: a conversation on the terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Result;
use jackfield_engine::Engine;
use jackfield_engine::model::Message;
use jackfield_loader::Plugins;

use super::generate::{answer, chat_prompt, request};
use crate::args::Sampling;
use crate::board;
use crate::control::{self, Ask};
use crate::setup::Session;

const HELP: &str = "/help                   this list
/reset                  forget the conversation
/plugins                what runs
/swap FILE [SLOT]       let the plugin in a file fill its slot, or another of its kind
/rollback KIND[/SLOT]   take the latest swap back
/quit                   leave (or end of input)";

/// Talks until the input ends.
pub(crate) fn run(session: &Session, sampling: &Sampling) -> Result<()> {
    let mut engine = session.engine(&session.load_options()?)?;
    let _orders = board::take_orders(&session.load, &session.plugins);
    let lines = lines()?;
    let is_terminal = std::io::stdin().is_terminal();
    let system = sampling.system.as_deref().map(|text| Message::new("system", text));
    let mut messages: Vec<Message> = system.into_iter().collect();
    let first = messages.len();
    if is_terminal {
        say(&format!("{} · /help for help", session.model_name()?))?;
    }
    loop {
        if is_terminal {
            prompt()?;
        }
        let Some(line) = next_line(&lines, &mut engine)? else { return Ok(()) };
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say(HELP)?,
            "/reset" => messages.truncate(first),
            "/plugins" => say(&order(&session.plugins, &mut engine, Ask::List)?)?,
            command if command.starts_with('/') => match ask_of(command) {
                Some(ask) => say(&order(&session.plugins, &mut engine, ask)?)?,
                None => say(&format!("{command}: expected one of\n{HELP}"))?,
            },
            question => {
                messages.push(Message::new("user", question));
                let asked = request(session, chat_prompt(&engine, &messages)?, sampling);
                match answer(&mut engine, asked, true) {
                    Ok(answer) => messages.push(Message::new("assistant", &answer.text)),
                    Err(error) => {
                        messages.pop();
                        say(&format!(
                            "{error:#} (the message was taken back; /reset starts anew)"
                        ))?;
                    }
                }
                say("")?;
            }
        }
    }
}

/// Lines of the standard input, read on a thread of their own.
fn lines() -> Result<Receiver<std::io::Result<String>>> {
    let (sender, lines) = sync_channel(1);
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("standard input".to_owned()).spawn(read)?;
    Ok(lines)
}

/// The next line; while there is none, the engine takes in what is offered to it.
fn next_line(
    lines: &Receiver<std::io::Result<String>>,
    engine: &mut Engine,
) -> Result<Option<String>> {
    loop {
        match lines.recv_timeout(REST) {
            Ok(line) => return Ok(Some(line?)),
            Err(RecvTimeoutError::Timeout) => engine.boundary(),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// The order that a command stands for.
fn ask_of(command: &str) -> Option<Ask> {
    let mut words = command.split_whitespace();
    let ask = match (words.next()?, words.next()?) {
        ("/swap", file) => {
            let file = std::path::absolute(PathBuf::from(file)).ok()?;
            Ask::Swap { file, slot: words.next().map(str::to_owned) }
        }
        ("/rollback", what) => {
            let (kind, slot) = what.split_once('/').unwrap_or((what, what));
            Ask::Rollback { kind: kind.to_owned(), slot: slot.to_owned() }
        }
        _ => return None,
    };
    words.next().is_none().then_some(ask)
}

/// Does what is asked, while the engine takes in what is offered to it.
fn order(plugins: &Arc<Plugins>, engine: &mut Engine, ask: Ask) -> Result<String> {
    let plugins = Arc::clone(plugins);
    let work = std::thread::Builder::new()
        .name("order".to_owned())
        .spawn(move || control::answer(&plugins, ask))?;
    while !work.is_finished() {
        engine.boundary();
        std::thread::sleep(Duration::from_millis(1));
    }
    let answer = work.join().map_err(|_| anyhow::anyhow!("the order ended in a panic"))?;
    Ok(answer.to_string())
}

/// How often an engine without requests looks for swaps.
const REST: Duration = Duration::from_millis(20);

fn prompt() -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b"> ")?;
    Ok(out.flush()?)
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
