//! Logits processors as components of the world `logits-processor-plugin`.

use std::cell::RefCell;

use super::offers::jackfield::plugin::settings::Config as Settings;
use super::offers::jackfield::plugin::types::Error as WireError;
use super::rows::Lent;
use super::{Plugin, config, make, place, with};
use crate::kinds::logits_processor::{BatchChange, LogitsProcessor, LogitsRows, Need, RowId};
use bindings::exports::jackfield::plugin::logits_processor as wit;

super::world!("logits-processor-plugin",
    "jackfield:plugin/rows@0.0.0" => rows,
);

thread_local! {
    static INSTANCE: RefCell<Option<Box<dyn LogitsProcessor>>> = const { RefCell::new(None) };
    static LENT: RefCell<Lent> = const { RefCell::new(Lent::new()) };
}

impl<P: Plugin<Kind = dyn LogitsProcessor>> wit::Guest for P {
    fn create(settings: &Settings) -> Result<(), WireError> {
        place(&INSTANCE, make::<P>(settings)?)
    }

    fn describe() -> wit::Properties {
        with(&INSTANCE, |instance| wit::Properties {
            need: match instance.need() {
                Need::Nothing => wit::Need::Nothing,
                Need::Max => wit::Need::Max,
                Need::Top => wit::Need::Top,
                Need::Ids => wit::Need::Ids,
                Need::All => wit::Need::All,
            },
            is_argmax_invariant: instance.is_argmax_invariant(),
        })
    }

    fn add(id: u32, params: &Settings, history: Vec<u32>) -> Result<(), WireError> {
        let copy = config::copied(params);
        let change = BatchChange::Added { row: RowId(id), params: &copy, history: &history };
        let added = with(&INSTANCE, |instance| instance.batch(&change));
        config::mark_read(&copy, params);
        Ok(added?)
    }

    fn follow(changes: Vec<wit::Change>) -> Result<(), WireError> {
        with(&INSTANCE, |instance| {
            changes.iter().try_for_each(|change| Ok(instance.batch(&change_of(change))?))
        })
    }

    fn apply(ids: Vec<u32>, vocab_size: u32) -> Result<(), WireError> {
        LENT.with_borrow_mut(|rows| {
            rows.begin(&ids, vocab_size as usize);
            let applied =
                with(&INSTANCE, |instance| instance.apply(&mut LogitsRows::new(&mut *rows)));
            rows.finish();
            Ok(applied?)
        })
    }
}

fn change_of(change: &wit::Change) -> BatchChange<'_> {
    match change {
        wit::Change::Advanced(it) => BatchChange::Advanced { row: RowId(it.row), token: it.token },
        wit::Change::RolledBack(it) => {
            BatchChange::RolledBack { row: RowId(it.row), history: &it.history }
        }
        wit::Change::Forked(it) => {
            BatchChange::Forked { parent: RowId(it.parent), child: RowId(it.child) }
        }
        wit::Change::Removed(row) => BatchChange::Removed { row: RowId(*row) },
    }
}
