//! `jackfield chat`: a conversation on the terminal.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Result;
use jackfield_engine::model::Message;

use super::generate::{answer, chat_prompt, request};
use crate::args::Sampling;
use crate::setup::Session;

const HELP: &str = "/help     this list
/reset    forget the conversation
/plugins  what runs
/quit     leave (or end of input)";

/// Talks until the input ends.
pub(crate) fn run(session: &Session, sampling: &Sampling) -> Result<()> {
    let mut engine = session.engine(&session.load_options()?)?;
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
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say(HELP)?,
            "/reset" => messages.truncate(first),
            "/plugins" => {
                for (kind, label) in engine.labels() {
                    say(&format!("{kind:18} {label}"))?;
                }
            }
            command if command.starts_with('/') => {
                say(&format!("{command}: expected one of\n{HELP}"))?;
            }
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

fn prompt() -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b"> ")?;
    Ok(out.flush()?)
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
