//! The interfaces `host`, `files`, `network`, `processes` and `store`: the services of the plugin's
//! [`Host`](plugin_api::Host), which checks its grants.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use plugin_api::Error;
use plugin_api::host::{Change, Command, HttpPiece, ReadSeek, Row};
use wasmtime::Result;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::bindings::offers::jackfield::plugin::{files, host, network, processes, store, types};
use super::state::State;

/// What the guest gets: an error that it may handle, or a result.
type Answer<T> = Result<std::result::Result<T, types::Error>>;

/// A file that a guest holds.
#[allow(unreachable_pub, reason = "named again by generated code")]
pub struct OpenFile(Box<dyn ReadSeek>);

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    host::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    files::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    network::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    processes::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

fn answer<T>(result: plugin_api::Result<T>) -> Answer<T> {
    Ok(result.map_err(types::Error::from))
}

fn outside(what: &str, error: &std::io::Error) -> Error {
    Error::outside(what, error)
}

impl types::Host for State {}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) -> Result<()> {
        match level {
            host::Level::Info => self.host.info(format_args!("{message}")),
            host::Level::Warn => self.host.warn(format_args!("{message}")),
        }
        Ok(())
    }

    fn monotonic_us(&mut self) -> Result<u64> {
        Ok(self.host.services().monotonic_us())
    }

    fn unix_seconds(&mut self) -> Answer<f64> {
        answer(self.host.services().unix_seconds())
    }

    fn fault(&mut self, message: String) -> Result<()> {
        self.say_fault(&message);
        Ok(())
    }
}

impl files::Host for State {
    fn list_folder(&mut self, folder: String) -> Answer<Vec<String>> {
        answer(self.working(|it| it.host.services().list(Path::new(&folder))))
    }

    fn size_bytes(&mut self, path: String) -> Answer<Option<u64>> {
        answer(self.working(|it| it.host.services().size_bytes(Path::new(&path))))
    }

    fn append(&mut self, path: String, bytes: Vec<u8>) -> Answer<()> {
        answer(self.working(|it| it.host.services().append(Path::new(&path), &bytes)))
    }

    fn rename(&mut self, from: String, to: String) -> Answer<()> {
        answer(self.working(|it| it.host.services().rename(Path::new(&from), Path::new(&to))))
    }

    fn remove(&mut self, path: String) -> Answer<()> {
        answer(self.working(|it| it.host.services().remove(Path::new(&path))))
    }
}

impl files::HostFile for State {
    fn open(&mut self, path: String) -> Answer<Resource<OpenFile>> {
        match self.host.services().open(Path::new(&path)) {
            Ok(file) => Ok(Ok(self.table.push(OpenFile(file))?)),
            Err(error) => answer(Err(error)),
        }
    }

    fn read(&mut self, this: Resource<OpenFile>, offset: u64, len: u32) -> Answer<Vec<u8>> {
        self.working(|it| {
            let file = &mut it.table.get_mut(&this)?.0;
            let mut piece = file.take(u64::from(len.min(PIECE_BYTES_MAX)));
            let mut bytes = Vec::new();
            let read = piece
                .get_mut()
                .seek(SeekFrom::Start(offset))
                .and_then(|_| piece.read_to_end(&mut bytes));
            answer(read.map(|_| bytes).map_err(|error| outside("file", &error)))
        })
    }

    fn size(&mut self, this: Resource<OpenFile>) -> Answer<u64> {
        let size = self.table.get_mut(&this)?.0.seek(SeekFrom::End(0));
        answer(size.map_err(|error| outside("file", &error)))
    }

    fn drop(&mut self, this: Resource<OpenFile>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl network::Host for State {
    /// A piece of an answer: the connection is closed once there is enough of it.
    fn get(&mut self, url: String, offset: u64, len_max: u32) -> Answer<network::Part> {
        let len_max = len_max.min(PIECE_BYTES_MAX) as usize;
        let mut part = network::Part { status: 0, len: None, bytes: Vec::new(), is_last: true };
        let take = &mut |piece: HttpPiece<'_>| match piece {
            HttpPiece::Start { status, len } => {
                (part.status, part.len) = (status, len);
                Ok(())
            }
            HttpPiece::Bytes(bytes) => {
                let room = len_max - part.bytes.len();
                part.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if bytes.len() <= room {
                    return Ok(());
                }
                part.is_last = false;
                Err(Error::outside(&url, "enough"))
            }
        };
        let got = self.working(|it| it.host.services().http_get(&url, offset, take));
        answer(if part.is_last { got.map(|()| part) } else { Ok(part) })
    }
}

impl processes::Host for State {
    fn run(&mut self, command: processes::Command) -> Answer<processes::Ended> {
        let processes::Command { program, args, env, folder } = command;
        let command = Command { program, args, env, folder: folder.map(Into::into) };
        let ended = self.working(|it| it.host.services().run(&command, &mut || {}));
        answer(ended.map(|it| processes::Ended {
            status: it.status,
            output: it.output,
            errors: it.errors,
        }))
    }
}

impl store::Host for State {
    fn rows(&mut self, session: String, prefix: String) -> Answer<Vec<store::Row>> {
        let rows = self.working(|it| it.host.services().store_rows(&session, &prefix));
        let wire = |Row { key, value }| store::Row { key, value };
        answer(rows.map(|rows| rows.into_iter().map(wire).collect()))
    }

    fn commit(&mut self, session: String, changes: Vec<store::Change>) -> Answer<bool> {
        let row = |store::Row { key, value }| Row { key, value };
        let changes = changes.into_iter().map(|change| match change {
            store::Change::Put(it) => Change::Put(row(it)),
            store::Change::Create(it) => Change::Create(row(it)),
            store::Change::Remove(key) => Change::Remove(key),
        });
        let changes: Vec<Change> = changes.collect();
        answer(self.working(|it| it.host.services().store_change(&session, &changes)))
    }
}

/// Most bytes of a file or an answer at a time.
const PIECE_BYTES_MAX: u32 = 8 << 20;
