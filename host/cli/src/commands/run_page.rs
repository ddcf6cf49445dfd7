//! The page of a run: `jackfield train --listen`.

use std::io::Write as _;
use std::net::SocketAddr;

use anyhow::Result;
use jackfield_server::{RunServer, ServerConfig};

use crate::setup::Session;

/// Serves it until what is returned is dropped. Keys are those of the table `server`.
pub(crate) fn serve(session: &Session, address: SocketAddr) -> Result<RunServer> {
    let mut config = ServerConfig::read(&session.config, session.live.folder())?;
    config.address = address;
    let server = RunServer::start(config, &session.bus)?;
    writeln!(std::io::stderr(), "http://{} · the run", server.address())?;
    Ok(server)
}
