//! A client of many streams: one thread and one connection for each.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::engine::{Failure, json as parse};

/// A prompt of tokens, and how many shall follow it.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) prompt: Vec<u32>,
    pub(crate) decode: usize,
}

impl Ask {
    /// Tokens that no other `seed` has in this order, so that nothing of them is in a cache.
    pub(crate) fn new(seed: usize, prefill: usize, decode: usize) -> Self {
        let token = |i: usize| 1 + ((i * 7919 + (seed + 1) * 104_729) % 30_000) as u32;
        Self { prompt: (0..prefill).map(token).collect(), decode }
    }
}

/// When tokens came.
pub(crate) struct Answer {
    sent: Instant,
    /// One time for each piece of text; a piece may be more than one token.
    pieces: Vec<Instant>,
    pub(crate) tokens: usize,
}

impl Answer {
    pub(crate) fn first(&self) -> Duration {
        self.pieces.first().map_or(Duration::MAX, |first| *first - self.sent)
    }

    /// The longest time between two pieces, from `since` on.
    pub(crate) fn longest_gap(&self, since: Instant) -> Duration {
        let gaps = self.pieces.windows(2).filter(|pair| pair[1] > since);
        gaps.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// Asks one thing and reads the stream to its end; `told` hears of each piece.
pub(crate) fn ask(port: u16, ask: &Ask, mut told: impl FnMut()) -> Result<Answer, Failure> {
    let body = json!({
        "model": MODEL, "prompt": ask.prompt, "max_tokens": ask.decode, "temperature": 0,
        "ignore_eos": true, "stream": true, "stream_options": { "include_usage": true },
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let sent = Instant::now();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Answer { sent, pieces: Vec::new(), tokens: 0 };
    let mut lines = BufReader::new(stream).lines();
    let status = lines.next().transpose()?.unwrap_or_default();
    if !status.contains(" 200") {
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        return Err(Failure(format!("{status}: {}", rest.last().cloned().unwrap_or_default())));
    }
    for line in lines {
        let line = line?;
        // Lines with the sizes of chunks lie between those of events.
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let event = parse(data)?;
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            answer.tokens = tokens as usize;
        }
        if event["choices"].as_array().is_some_and(|choices| !choices.is_empty()) {
            answer.pieces.push(Instant::now());
            told();
        }
    }
    if answer.tokens == ask.decode {
        return Ok(answer);
    }
    Err(Failure(format!("expected {} tokens, found {}", ask.decode, answer.tokens)))
}

/// Whether a server says that it is well.
pub(crate) fn is_well(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut status = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && BufReader::new(stream).read_line(&mut status).is_ok()
        && status.contains(" 200")
}

/// What the model is called in requests, on every server.
pub(crate) const MODEL: &str = "bench";
