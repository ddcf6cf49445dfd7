//! Servers: started with the same model, threads and room, stopped when they were measured.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::{MODEL, is_well};
use crate::engine::Failure;
use crate::setup;

/// What a server is given.
pub(crate) struct Room<'a> {
    pub(crate) file: &'a Path,
    pub(crate) threads: usize,
    /// Requests at a time.
    pub(crate) streams: usize,
    /// Tokens of one request.
    pub(crate) context: usize,
    /// Tokens that are computed together.
    pub(crate) step: usize,
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// llama.cpp's; every request has a slot of its own, and the cache is of `f16` as ours.
    pub(crate) fn llama_cpp(program: &Path, room: &Room<'_>) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.arg("--model").arg(room.file).args(["--alias", MODEL]);
        let threads = room.threads.to_string();
        command.args(["--threads", &threads, "--threads-batch", &threads]);
        command.args(["--parallel", &room.streams.to_string()]);
        command.args(["--ctx-size", &(room.streams * room.context).to_string()]);
        let step = room.step.to_string();
        command.args(["--batch-size", &step, "--ubatch-size", &step]);
        command.args(["--cache-type-k", "f16", "--cache-type-v", "f16", "--cache-ram", "0"]);
        command.args(["--no-webui", "--no-warmup"]);
        Self::start(command, "--port", |port| port.to_string())
    }

    /// Ours, with activations of 8 or 16 bits.
    pub(crate) fn jackfield(
        program: &Path,
        activations: &str,
        room: &Room<'_>,
    ) -> Result<Self, Failure> {
        let config = setup::folder()?.join(format!("serve-{activations}.toml"));
        let Room { streams, context, step, .. } = room;
        let engine =
            format!("num_seqs = {streams}\ntokens_per_step = {step}\ncontext_length = {context}\n");
        let server = format!("model_names = [\"{MODEL}\"]\n");
        let backend = format!("activations = \"{activations}\"\n");
        let text = format!("[engine]\n{engine}\n[server]\n{server}\n[plugin.cpu]\n{backend}");
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).arg("--model").arg(room.file);
        command.args(["--threads", &room.threads.to_string(), "serve"]);
        Self::start(command, "--listen", |port| format!("127.0.0.1:{port}"))
    }

    fn start(
        mut command: Command,
        option: &str,
        place: impl Fn(u16) -> String,
    ) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        command.args([option, &place(port)]);
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let program = command.get_program().to_string_lossy().into_owned();
        eprintln!("{program} {}", words.join(" "));
        let log = setup::folder()?.join("server.log");
        command.stdout(Stdio::null()).stderr(File::create(&log)?);
        let mut server = Self { child: command.spawn()?, port };
        let until = Instant::now() + Duration::from_secs(120);
        while !is_well(port) {
            let has_ended = server.child.try_wait()?.is_some();
            if has_ended || Instant::now() > until {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or_default();
                return Err(Failure(format!("{program} does not answer: {last}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}
