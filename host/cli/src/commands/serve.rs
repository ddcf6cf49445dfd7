//! `jackfield serve`: the engine behind HTTP, until the process is told to end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use jackfield_runtime::SwapTarget;
use jackfield_server::{Board, EngineFacts, Server, ServerConfig};
use plugin_api::kinds::logits_processor::LogitsProcessor;
use plugin_api::{Config, Hook, Kind, OutputParser};

use crate::args::Serve;
use crate::board;
use crate::embedder::{self, SideBySide};
use crate::exchange::{self, Exchanges};
use crate::memory;
use crate::setup::Session;

/// Listens, loads, answers.
pub(crate) fn run(session: &Session, args: &Serve) -> Result<()> {
    let mut options = session.load_options()?;
    if let Some(n) = args.max_running {
        if !(1..=4096).contains(&n) {
            bail!("--max-running: expected 1 to 4096, found {n}");
        }
        options.num_seqs_max = n as usize;
        options.logit_rows_max = options.logit_rows_max.max(n as usize);
    }
    let own_name = own_name(&session.model_name()?);
    let embedding_model = args
        .embedding_model
        .clone()
        .map_or_else(|| session.other_model("embedding_model"), |name| Ok(Some(name)))?;
    let mut config = configured(&session.config, session.live.folder(), args, &own_name)?;
    config.embedding_model = embedding_model.as_deref().map(self::own_name);
    let jobs_max = config.max_queued.max(1);
    let kinds = [<dyn LogitsProcessor>::NAME, <dyn Hook>::NAME, <dyn OutputParser>::NAME];
    let readers = kinds.into_iter().flat_map(|kind| session.wiring.names(kind)).collect();
    let exchanges = Exchanges::default();
    let (plugins, bus) = (Arc::clone(&session.plugins), session.bus.clone());
    let (adapter, mask) = (Arc::clone(&exchanges.adapter), Arc::clone(&exchanges.mask));
    let board = Board { plugins, bus, adapter, mask };
    let facts = EngineFacts { readers, num_seqs_max: options.num_seqs_max, board: Some(board) };
    let server = Server::start(config, facts)?;
    let (apply, given, name) = (server.configurer(), args.clone(), own_name.clone());
    let follow = exchanges.follow(&session.config);
    session.live.on_change(move |config, folder| {
        follow(config);
        apply(configured(config, folder, &given, &name)?);
        Ok(())
    });
    let (live, plugins) = (Arc::clone(&session.live), Arc::clone(&session.plugins));
    server.obey_signals(move || match live.read_again(&plugins) {
        Ok(()) => tracing::warn!("the configuration was read again"),
        Err(error) => tracing::warn!("the configuration stays as it was: {error:#}"),
    })?;
    let address = server.address();
    writeln!(std::io::stderr(), "http://{address} · {own_name} · loading")?;
    if let Some(admin) = server.admin_address() {
        writeln!(std::io::stderr(), "http://{admin} · for operators")?;
    }
    let mut beside: Vec<Arc<dyn SwapTarget>> = Vec::new();
    if let Some(model) = &embedding_model {
        let embedder = embedder::start(session, model, jobs_max)?;
        beside.push(Arc::new(embedder::swapper(session, &embedder)));
        server.embed_with(embedder);
    }
    options.precise = exchange::precise(session)?;
    let engine = session.engine(&options)?;
    let memories = memory::load(session, engine.model())?;
    if !memories.is_empty() {
        beside.push(Arc::new(memory::swapper(session, &memories)));
        server.remember_with(memories);
    }
    if !beside.is_empty() {
        beside.insert(0, Arc::new(engine.swapper()));
        session.plugins.attach(Arc::new(SideBySide(beside)));
    }
    exchanges.offer(session, &engine, &options);
    let _orders = board::take_orders(session);
    server.run(engine, || {
        // Who closed standard error does not want to know.
        let _ = writeln!(std::io::stderr(), "http://{address} · {own_name} · ready");
    });
    session.bus.flush();
    Ok(())
}

/// The table `server`, with what the command line and the environment add.
fn configured(config: &Config, base: &Path, args: &Serve, own_name: &str) -> Result<ServerConfig> {
    let mut server = ServerConfig::read(config, base)?;
    if let Some(address) = args.listen {
        server.address = address;
    }
    if args.admin.is_some() {
        server.admin_address = args.admin;
    }
    if let Some(file) = &args.admin_key_file {
        server.admin_keys.add_file(file)?;
    }
    if let Some(file) = &args.api_key_file {
        server.keys.add_file(file)?;
    }
    if let Some(key) = std::env::var("JACKFIELD_API_KEY").ok().filter(|key| !key.is_empty()) {
        server.keys.add(&key);
    }
    if let Some(n) = args.max_queued {
        server.max_queued = n as usize;
    }
    server.model_names.insert(0, own_name.to_owned());
    server.model_names.extend(args.model_name.iter().cloned());
    Ok(server)
}

/// What requests call a model: a name as it is, a path without its folders and ending.
fn own_name(model: &str) -> String {
    let path = PathBuf::from(model);
    let is_path = path.exists() || path.is_absolute();
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.filter(|_| is_path).map_or_else(|| model.to_owned(), |n| n.to_string_lossy().into_owned())
}
