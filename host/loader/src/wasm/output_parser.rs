//! Output parsers: text goes in, pieces come out.

use std::sync::Arc;

use plugin_api::kinds::output_parser::{AnswerId, OutputParser, Piece};
use plugin_api::{Config, Error, Provided, Result};
use wasmtime::component::InstancePre;

use super::bindings::output_parser::exports::jackfield::plugin::output_parser as wit;
use super::bindings::output_parser::{OutputParserPlugin, OutputParserPluginPre};
use super::capability;
use super::instance::{Instance, Plugin};
use super::state::State;

pub(super) fn provided(
    plugin: &Arc<Plugin>,
    linked: InstancePre<State>,
) -> wasmtime::Result<Provided> {
    let linked = OutputParserPluginPre::new(linked)?;
    let theirs = Arc::clone(plugin);
    Ok(capability::<dyn OutputParser>(plugin, move |config| {
        let instance = Instance::create(
            &theirs,
            |store| linked.instantiate(store),
            config,
            |world, store, config| {
                world.jackfield_plugin_output_parser().call_create(store, config)
            },
        )?;
        Ok(Box::new(WasmOutputParser { instance, blamed: None }))
    }))
}

struct WasmOutputParser {
    instance: Instance<OutputParserPlugin>,
    /// The error that its owner was told of last.
    blamed: Option<Error>,
}

impl WasmOutputParser {
    /// Appends what a call answered with. Any text may come: whatever fails is the guest's fault.
    fn take(&mut self, pieces: Result<Vec<wit::Piece>>, out: &mut Vec<Piece>) -> Result<()> {
        let pieces = pieces.inspect_err(|error| self.instance.blame(error, &mut self.blamed))?;
        out.extend(pieces.into_iter().map(piece_of));
        Ok(())
    }
}

impl OutputParser for WasmOutputParser {
    fn open(&mut self, answer: AnswerId, params: &Config) -> Result<()> {
        self.instance.call_with(params, |world, store, params| {
            world.jackfield_plugin_output_parser().call_open(store, answer.0, params)
        })
    }

    fn push(&mut self, answer: AnswerId, text: &str, out: &mut Vec<Piece>) -> Result<()> {
        let pieces = self.instance.call(|world, store| {
            world.jackfield_plugin_output_parser().call_push(store, answer.0, text)
        });
        self.take(pieces, out)
    }

    fn finish(&mut self, answer: AnswerId, out: &mut Vec<Piece>) -> Result<()> {
        let pieces = self.instance.call(|world, store| {
            world.jackfield_plugin_output_parser().call_finish(store, answer.0)
        });
        self.take(pieces, out)
    }

    fn close(&mut self, answer: AnswerId) {
        // The request has ended whatever the guest does; a trap shows in the next call.
        let _ = self.instance.call(|world, store| {
            world.jackfield_plugin_output_parser().call_close(store, answer.0).map(Ok)
        });
    }
}

fn piece_of(piece: wit::Piece) -> Piece {
    match piece {
        wit::Piece::Content(text) => Piece::Content(text),
        wit::Piece::Reasoning(text) => Piece::Reasoning(text),
        wit::Piece::ToolCall(wit::ToolCall { index, name }) => Piece::ToolCall { index, name },
        wit::Piece::Arguments(wit::Arguments { index, text }) => Piece::Arguments { index, text },
    }
}
