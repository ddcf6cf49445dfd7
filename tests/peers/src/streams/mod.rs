//! Servers under many streams: tokens a second, times to the first token, and what a long prompt
//! does to those that are being answered.

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::client::{Answer, Ask, ask};
use self::server::{Room, Server};
use crate::args::Args;
use crate::engine::Failure;
use crate::llama_cpp;

/// Who serves: a name, and how to start it.
struct Peer {
    name: &'static str,
    start: Box<Start>,
}

type Start = dyn Fn(&Room<'_>) -> Result<Server, Failure>;

/// Prints a table for each model and number of threads.
pub(crate) fn compare(args: &Args, jackfield: &Path, models: &[PathBuf]) -> Result<(), Failure> {
    let peers = peers(args, jackfield)?;
    for file in models {
        for &threads in &args.threads {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            println!("\n{name}, {threads} threads, {} + {} tokens", args.prefill, args.decode);
            println!(
                "{:<18} {:>8} {:>10} {:>12} {:>12}",
                "", "streams", "tokens/s", "first p50", "p99"
            );
            for &streams in &args.streams {
                let context = args.prefill + args.decode + 8;
                let room = Room { file, threads, streams, context, step: 512 };
                for peer in &peers {
                    under_load(args, peer, &room)?;
                }
            }
            if let Some(tokens) = args.arrival {
                for peer in &peers {
                    for step in [512, tokens] {
                        arrival(args, peer, file, threads, [tokens, step])?;
                    }
                }
            }
            if let Some(tokens) = args.shared {
                for peer in &peers {
                    shared(args, peer, file, threads, tokens)?;
                }
            }
        }
    }
    Ok(())
}

fn peers(args: &Args, jackfield: &Path) -> Result<Vec<Peer>, Failure> {
    let mut peers: Vec<Peer> = Vec::new();
    if args.engines.iter().any(|name| name == "llama.cpp") {
        let program = llama_cpp::server()?;
        let start = move |room: &Room<'_>| Server::llama_cpp(&program, room);
        peers.push(Peer { name: "llama.cpp", start: Box::new(start) });
    }
    if args.engines.iter().any(|name| name == "jackfield") {
        for (name, activations) in [("jackfield int8", "int8"), ("jackfield int16", "int16")] {
            let program = jackfield.to_owned();
            let start = move |room: &Room<'_>| Server::jackfield(&program, activations, room);
            peers.push(Peer { name, start: Box::new(start) });
        }
    }
    Ok(peers)
}

/// As many streams at a time as there is room for; each run has prompts of its own.
fn under_load(args: &Args, peer: &Peer, room: &Room<'_>) -> Result<(), Failure> {
    let server = (peer.start)(room)?;
    ask(server.port, &Ask::new(usize::MAX >> 32, 16, 4), || {})?;
    let mut speeds = Vec::new();
    let mut firsts = Vec::new();
    for run in 0..args.runs {
        let start = Instant::now();
        let asks =
            (0..room.streams).map(|i| Ask::new(run * room.streams + i, args.prefill, args.decode));
        let answers = together(server.port, &asks.collect::<Vec<_>>())?;
        let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
        speeds.push(tokens as f64 / start.elapsed().as_secs_f64());
        firsts.extend(answers.iter().map(Answer::first));
    }
    speeds.sort_by(f64::total_cmp);
    firsts.sort();
    println!(
        "{:<18} {:>8} {:>10.1} {:>9} ms {:>9} ms",
        peer.name,
        room.streams,
        speeds[speeds.len() / 2],
        quantile(&firsts, 0.5).as_millis(),
        quantile(&firsts, 0.99).as_millis(),
    );
    Ok(())
}

/// A long prompt arrives while others are being answered: when its first token comes, and how long
/// the others wait meanwhile.
fn arrival(
    args: &Args,
    peer: &Peer,
    file: &Path,
    threads: usize,
    [tokens, step]: [usize; 2],
) -> Result<(), Failure> {
    const OTHERS: usize = 4;
    let decode = 512;
    let room = Room { file, threads, streams: OTHERS + 1, context: tokens + decode, step };
    let server = (peer.start)(&room)?;
    let (mut firsts, mut gaps) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        let begun = AtomicUsize::new(0);
        let (others, first, arrived) = std::thread::scope(|scope| {
            let others: Vec<_> = (0..OTHERS)
                .map(|i| {
                    let (port, begun) = (server.port, &begun);
                    let asked = Ask::new(run * 100 + i, 16, decode);
                    let told = move || {
                        begun.fetch_add(1, Ordering::Relaxed);
                    };
                    scope.spawn(move || ask(port, &asked, told))
                })
                .collect();
            while begun.load(Ordering::Relaxed) < OTHERS * 8
                && !others.iter().all(|o| o.is_finished())
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            let arrived = Instant::now();
            let first = ask(server.port, &Ask::new(run * 100 + 99, tokens, 1), || {});
            let others: Result<Vec<_>, _> = others.into_iter().map(joined).collect();
            (others, first, arrived)
        });
        firsts.push(first?.first());
        gaps.extend(others?.iter().map(|other| other.longest_gap(arrived)));
    }
    firsts.sort();
    gaps.sort();
    println!(
        "{:<18} a prompt of {tokens} beside {OTHERS} streams, {step} tokens a step: first token after \
         {} ms (worst {} ms); the others wait {} ms at most",
        peer.name,
        quantile(&firsts, 0.5).as_millis(),
        quantile(&firsts, 1.0).as_millis(),
        quantile(&gaps, 1.0).as_millis(),
    );
    Ok(())
}

/// The same long beginning twice, with other endings.
fn shared(
    args: &Args,
    peer: &Peer,
    file: &Path,
    threads: usize,
    tokens: usize,
) -> Result<(), Failure> {
    let room = Room { file, threads, streams: 1, context: tokens + 64, step: 512 };
    let server = (peer.start)(&room)?;
    ask(server.port, &Ask::new(usize::MAX >> 32, 16, 4), || {})?;
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        for (turn, firsts) in [&mut once, &mut twice].into_iter().enumerate() {
            let mut asked = Ask::new(run, tokens, 1);
            asked.prompt.extend(Ask::new(1000 + run * 2 + turn, 16, 1).prompt);
            firsts.push(ask(server.port, &asked, || {})?.first());
        }
    }
    once.sort();
    twice.sort();
    let [once, twice] = [&once, &twice].map(|times| quantile(times, 0.5));
    println!(
        "{:<18} a beginning of {tokens} tokens: first token after {} ms, the second time {} ms ({:.0} % less)",
        peer.name,
        once.as_millis(),
        twice.as_millis(),
        100.0 * (1.0 - twice.as_secs_f64() / once.as_secs_f64()),
    );
    Ok(())
}

/// Asks everything at the same time.
fn together(port: u16, asks: &[Ask]) -> Result<Vec<Answer>, Failure> {
    std::thread::scope(|scope| {
        let threads = asks.iter().map(|asked| scope.spawn(move || ask(port, asked, || {})));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(joined).collect()
    })
}

fn joined(
    thread: std::thread::ScopedJoinHandle<'_, Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    thread.join().unwrap_or_else(|_| Err(Failure("a client panicked".to_owned())))
}

/// Of sorted times.
fn quantile(times: &[Duration], q: f64) -> Duration {
    times[((times.len() - 1) as f64 * q).round() as usize]
}
