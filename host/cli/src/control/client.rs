//! The side that gives orders.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::{Answer, Ask, folder};

/// Asks the running process with the number `pid`, or the only one.
pub(crate) fn ask(pid: Option<u32>, ask: &Ask) -> Result<Answer> {
    let mut stream = connect(pid)?;
    let mut line = serde_json::to_string(ask)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).context("the answer of the running process")
}

/// Numbers of the processes that take orders.
pub(crate) fn running() -> Vec<u32> {
    sockets()
        .into_iter()
        .filter(|(_, path)| UnixStream::connect(path).is_ok())
        .map(|x| x.0)
        .collect()
}

fn connect(pid: Option<u32>) -> Result<UnixStream> {
    if let Some(pid) = pid {
        let path = folder().join(format!("{pid}.sock"));
        return UnixStream::connect(&path).with_context(|| {
            format!("process {pid}: no running chat or service under that number")
        });
    }
    match running()[..] {
        [pid] => connect(Some(pid)),
        [] => {
            bail!("no running chat or service was found: start `jackfield serve` or `chat` first")
        }
        ref several => bail!("several processes run: name one with --pid: {several:?}"),
    }
}

fn sockets() -> Vec<(u32, PathBuf)> {
    let entries = folder().read_dir().into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut sockets: Vec<_> =
        paths.filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path))).collect();
    sockets.sort();
    sockets
}
