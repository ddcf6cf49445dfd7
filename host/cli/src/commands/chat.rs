//! `jackfield chat`: a conversation on the terminal.

use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Result;
use jackfield_engine::Engine;
use jackfield_engine::model::Message;
use jackfield_loader::Plugins;

use super::generate::{answer, chat_prompt, request};
use crate::args::Sampling;
use crate::board;
use crate::control::{self, Ask};
use crate::memory::{self, Remembered};
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
    let _orders = board::take_orders(session);
    let remembered = sampling.session.as_deref();
    let remembered = remembered.map(|id| Remembered::open(session, &engine, id)).transpose()?;
    let mut inbox = Inbox::open(&engine)?;
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
        let Some(line) = inbox.line(&mut engine)? else { return Ok(()) };
        match line.trim() {
            "" => {}
            "/quit" => return Ok(()),
            "/help" => say(HELP)?,
            "/reset" => messages.truncate(first),
            "/plugins" => say(&inbox.order(&session.plugins, &mut engine, Ask::List)?)?,
            command if command.starts_with('/') => match ask_of(command) {
                Some(ask) => say(&inbox.order(&session.plugins, &mut engine, ask)?)?,
                None => say(&format!("{command}: expected one of\n{HELP}"))?,
            },
            question => {
                messages.push(Message::new("user", question));
                match turn(session, &mut engine, remembered.as_ref(), &messages, sampling) {
                    Ok(answer) => messages.push(Message::new("assistant", answer)),
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

/// Answers what was said last, with what is remembered of it.
fn turn(
    session: &Session,
    engine: &mut Engine,
    remembered: Option<&Remembered<'_>>,
    messages: &[Message],
    sampling: &Sampling,
) -> Result<String> {
    let Some(remembered) = remembered else {
        let asked = request(session, chat_prompt(engine, messages)?, sampling)?;
        return Ok(answer(engine, asked, true)?.text);
    };
    let (recalled, messages) = remembered.recall(engine, messages)?;
    let asked = request(session, chat_prompt(engine, &messages)?, sampling)?;
    let text = answer(engine, asked, true)?.text;
    if let Err(error) = memory::remember(recalled, &text) {
        say(&format!("\n{error:#} (the answer stands; this turn is not remembered)"))?;
    }
    Ok(text)
}

/// What an idle conversation sleeps for.
enum Event {
    /// A line of the standard input; nothing at its end.
    Line(Option<std::io::Result<String>>),
    /// A swap waits for a boundary.
    Offer,
    /// An order is done.
    Done,
}

/// Where a conversation waits while no tokens are made.
struct Inbox {
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    /// Lines that came while an order was done.
    waiting: VecDeque<Option<std::io::Result<String>>>,
}

impl Inbox {
    /// Reads the standard input on a thread of its own, and listens to what the engine is offered.
    fn open(engine: &Engine) -> Result<Self> {
        let (sender, events) = sync_channel(1);
        let (lines, offers) = (sender.clone(), sender.clone());
        let read = move || {
            let all = std::io::stdin().lock().lines().map(Some);
            for line in all.chain([None]) {
                if lines.send(Event::Line(line)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("standard input".to_owned()).spawn(read)?;
        // Where an event waits already, a boundary follows it as well.
        engine.swapper().on_offer(move || drop(offers.try_send(Event::Offer)));
        Ok(Self { events, sender, waiting: VecDeque::new() })
    }

    /// The next event; before the wait for it, the engine takes in what is offered to it.
    fn next(&self, engine: &mut Engine) -> Result<Event> {
        engine.boundary();
        Ok(self.events.recv()?)
    }

    /// The next line, if there is one.
    fn line(&mut self, engine: &mut Engine) -> Result<Option<String>> {
        if let Some(line) = self.waiting.pop_front() {
            return Ok(line.transpose()?);
        }
        loop {
            if let Event::Line(line) = self.next(engine)? {
                return Ok(line.transpose()?);
            }
        }
    }

    /// Does what is asked, while the engine takes in what is offered to it.
    fn order(&mut self, plugins: &Arc<Plugins>, engine: &mut Engine, ask: Ask) -> Result<String> {
        let (plugins, done) = (Arc::clone(plugins), Tell(self.sender.clone()));
        let work = move || {
            let _done = done;
            control::answer(&plugins, ask)
        };
        let work = std::thread::Builder::new().name("order".to_owned()).spawn(work)?;
        loop {
            match self.next(engine)? {
                Event::Line(line) => self.waiting.push_back(line),
                Event::Offer => {}
                Event::Done => break,
            }
        }
        let answer = work.join().map_err(|_| anyhow::anyhow!("the order ended in a panic"))?;
        Ok(answer.to_string())
    }
}

/// Tells, when it is dropped, that an order is done: after a panic as well.
struct Tell(SyncSender<Event>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Done);
    }
}

/// The order that a command stands for.
fn ask_of(command: &str) -> Option<Ask> {
    let mut words = command.split_whitespace();
    let ask = match (words.next()?, words.next()?) {
        ("/swap", file) => {
            let file = std::path::absolute(PathBuf::from(file)).ok()?;
            Ask::Swap { files: vec![(file, words.next().map(str::to_owned))] }
        }
        ("/rollback", what) => {
            let (kind, slot) = what.split_once('/').unwrap_or((what, what));
            Ask::Rollback { kind: kind.to_owned(), slot: slot.to_owned() }
        }
        _ => return None,
    };
    words.next().is_none().then_some(ask)
}

fn prompt() -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b"> ")?;
    Ok(out.flush()?)
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
