//! A logits processor that behaves as the text in [`MODE`] says, which tests write into the built
//! file: `fair`, `answer=7`, a habit such as `nan`, or a deed at a point such as `panic@drop`.
//!
//! Fair, it multiplies the logits of a request by its parameter `puppet_scale`.

mod deeds;
#[cfg(feature = "raw")]
mod raw;

use std::sync::atomic::{AtomicU32, Ordering};

use plugin_api::prelude::*;

/// What to do; written over in the built file.
#[used]
static MODE: [u8; 64] = *b"jackfield-mode:fair                                             ";

/// The text after the mark.
#[allow(unsafe_code, reason = "a volatile read")]
pub(crate) fn mode() -> String {
    // SAFETY: a static of this library; volatile, because the file may say otherwise than the
    // source.
    let bytes = unsafe { std::ptr::read_volatile(&raw const MODE) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.trim_start_matches("jackfield-mode:").trim_end().to_owned()
}

/// Does as it is told.
pub struct Puppet {
    mode: String,
    default: f32,
    scales: RowMap<f32>,
    /// For those who forget nothing: every scale that was ever asked for, by row.
    remembered: Vec<f32>,
    calls: AtomicU32,
}

impl Puppet {
    /// What the mode says is done at `point`.
    fn at(&self, point: &str) -> Result<()> {
        deeds::at(&self.mode, point)
    }

    fn is(&self, habit: &str) -> bool {
        self.mode == habit
    }
}

impl Capability for Puppet {
    const NAME: &'static str = "puppet";

    fn from_config(config: &Config) -> Result<Self> {
        static STARTS: AtomicU32 = AtomicU32::new(0);
        let mode = mode();
        deeds::at(&mode, "create")?;
        if STARTS.fetch_add(1, Ordering::Relaxed) > 0 {
            deeds::at(&mode, "second-create")?;
        }
        if mode == "panics-on-text" {
            let keys: Vec<String> = config.keys().map(str::to_owned).collect();
            assert!(keys.iter().all(|key| config.text(key).is_err()), "the puppet cannot read");
        }
        let default = match mode.as_str() {
            "unwraps-config" => config.number_or("puppet_scale", 1.0, SCALES).unwrap(),
            _ => config.number_or("puppet_scale", 1.0, SCALES)?,
        };
        let (scales, remembered, calls) = (RowMap::new(), Vec::new(), AtomicU32::new(0));
        Ok(Self { mode, default: default as f32, scales, remembered, calls })
    }
}

impl LogitsProcessor for Puppet {
    fn batch(&mut self, change: &BatchChange<'_>) -> Result<()> {
        self.at("batch")?;
        let default = f64::from(self.default);
        let scale = |params: &Config| match self.mode.as_str() {
            "unwraps-params" => Ok(params.number_or("puppet_scale", default, SCALES).unwrap()),
            _ => params.number_or("puppet_scale", default, SCALES),
        };
        match *change {
            BatchChange::Removed { .. } if self.is("ignores-removed") => return Ok(()),
            BatchChange::Forked { .. } if self.is("ignores-forked") => return Ok(()),
            BatchChange::Forked { parent, child } if self.is("trusts-forked") => {
                assert!(parent != child && self.scales.get(parent).is_some(), "who is {parent:?}?");
            }
            BatchChange::Added { row, params, .. } if self.is("ignores-removed") => {
                let is_known = self.scales.get(row).is_some_and(|scale| *scale != 1.0);
                if is_known && !params.has("puppet_scale") {
                    return Ok(());
                }
            }
            BatchChange::Added { row, history, .. } if self.is("trusts-history") => {
                self.remembered = vec![history[0] as f32 + row.0 as f32];
            }
            BatchChange::RolledBack { row, .. } if self.is("forgets-rolled-back") => {
                return self.scales.follow(&BatchChange::Removed { row }, |_, _| Ok(1.0));
            }
            _ => {}
        }
        self.scales.follow(change, |params, _| Ok(scale(params)? as f32))
    }

    fn need(&self) -> Need {
        let _ = self.at("need");
        match self.mode.as_str() {
            "reads-max" => Need::Max,
            _ => Need::Nothing,
        }
    }

    fn apply(&mut self, logits: &mut LogitsRows<'_>) -> Result<()> {
        self.at("apply")?;
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let (num_rows, vocab_size) = (logits.len(), logits.vocab_size());
        match self.mode.as_str() {
            "refuses-no-rows" if num_rows == 0 => return Err(Error::outside("puppet", "no rows")),
            "divides-by-rows" => {
                std::hint::black_box(vocab_size / num_rows);
            }
            "odd-vocabulary" => assert!(vocab_size % 2 == 0, "the puppet is not odd"),
            "tiny-vocabulary" => assert!(vocab_size > 1, "one token is not enough"),
            _ => {}
        }
        let (mode, scales) = (self.mode.clone(), &self.scales);
        logits.for_each(|row| {
            let scale = scales.get(row.id()).copied();
            match mode.split_once('=').unwrap_or((&mode, "")) {
                ("answer", number) => row.set(0, number.parse().unwrap_or(-1.0)),
                ("nan", _) => row.set(0, f32::NAN),
                ("unmasks", _) => row.set(4, 1.0),
                ("edits-without-parameters", _) => row.scale(0.5),
                ("neighbours", _) => row.scale(1.0 / num_rows as f32),
                ("row-number", _) => row.scale(1.0 + row.id().0 as f32),
                ("counts-calls", _) => row.scale(1.0 + calls as f32),
                ("random", _) => row.scale(1.0 + deeds::random()),
                ("wrong-argmax", _) => row.set(vocab_size as u32 - 1, 1e9),
                ("reads-undeclared-max", _) => {
                    std::hint::black_box(row.max());
                }
                ("reads-undeclared-whole", _) => {
                    std::hint::black_box(row.whole()[0]);
                }
                ("indexes-the-vocabulary", _) => {
                    std::hint::black_box(row.whole()[300]);
                }
                ("unknown-row", _) => row.scale(*scale.as_ref().expect("a row that was added")),
                _ => {}
            }
            if let Some(scale) = scale.filter(|scale| *scale != 1.0) {
                row.scale(scale);
            }
            Ok(())
        })
    }

    fn is_argmax_invariant(&self) -> bool {
        self.is("wrong-argmax")
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.at("drop");
    }
}

const SCALES: std::ops::RangeInclusive<f64> = 0.1..=10.0;

#[cfg(not(feature = "raw"))]
export_plugin!(Puppet);
