//! What the process is told from outside: to end, or to read its configuration anew.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;

/// Listens to `SIGTERM`, `SIGINT` and `SIGHUP`.
pub(crate) fn obey(app: Arc<App>, on_hangup: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let on_hangup = Arc::new(on_hangup);
    tokio::spawn(async move {
        let mut times = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => times += 1,
                _ = interrupt.recv() => times += 1,
                _ = hangup.recv() => {
                    let on_hangup = Arc::clone(&on_hangup);
                    // Plugins are made anew there, which takes its time.
                    drop(tokio::task::spawn_blocking(move || on_hangup()));
                    continue;
                }
            }
            if app.port.model().is_none() {
                // Nobody was answered yet, and whoever loads a model does not look up.
                std::process::exit(LOADING_STATUS);
            }
            let now = Instant::now();
            // Whoever asks twice does not want to wait.
            app.port.drain(if times > 1 { now } else { now + app.config().drain_time });
        }
    });
    Ok(())
}

/// What the process ends with if it is ended before it has a model: 128 and the signal `SIGTERM`.
const LOADING_STATUS: i32 = 143;
