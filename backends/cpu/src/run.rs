//! One run: checks, then the instructions in order, each divided over threads where that pays.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kernels_cpu::Isa;
use plugin_api::kinds::backend::{Bindings, StatePager};
use plugin_api::{Error, Result};

use crate::code::{Code, Instruction, Op};
use crate::execute::execute;
use crate::frame::{Frame, Part};
use crate::pool::{Crew, Pool};

/// Runs compiled code once.
pub(crate) fn run(
    code: &Code,
    isa: Isa,
    pool: &Pool,
    bind: &mut Bindings<'_>,
    pager: Option<&mut dyn StatePager>,
) -> Result<()> {
    code.check.check(bind)?;
    let mut frame = Frame::new(code, isa, bind)?;
    for check in &code.index_checks {
        check.run(&mut frame)?;
    }
    let crew = pool.crew();
    let ended = catch_unwind(AssertUnwindSafe(|| walk(code, &mut frame, &crew, pager)));
    ended.unwrap_or_else(|_| Err(Error::outside("cpu backend", "an instruction panicked")))
}

fn walk(
    code: &Code,
    frame: &mut Frame<'_>,
    crew: &Crew<'_>,
    mut pager: Option<&mut dyn StatePager>,
) -> Result<()> {
    let mut entered = None;
    for instruction in &code.instructions {
        if let Op::Check(check) = &instruction.op {
            check.run(frame)?;
            continue;
        }
        let units = instruction.units.of(frame.sizes());
        if units == 0 {
            continue;
        }
        if let (Some(pager), Some(state)) = (&mut pager, state_of(&instruction.op))
            && entered != Some(state)
        {
            pager.enter(state, frame.arena())?;
            entered = Some(state);
        }
        let chunks = num_chunks(instruction, frame, units, crew.threads());
        let frame = &*frame;
        if chunks == 1 {
            // SAFETY: the only part of the only instruction that runs.
            execute(&instruction.op, unsafe { Part::new(frame, instruction, 0..units) });
            continue;
        }
        crew.run(chunks, &|chunk| {
            let part = units * chunk / chunks..units * (chunk + 1) / chunks;
            // SAFETY: each chunk is run once, chunks do not overlap, and `crew.run` returns when
            // all are done.
            execute(&instruction.op, unsafe { Part::new(frame, instruction, part) });
        })?;
    }
    Ok(())
}

/// The state that an instruction touches.
fn state_of(op: &Op) -> Option<usize> {
    match op {
        Op::Store(attention) | Op::Attend(attention) => Some(attention.state_index),
        Op::Recur(recurrence) => Some(recurrence.state_index),
        _ => None,
    }
}

/// Into how many parts an instruction is divided: enough that a slow thread does not hold up the
/// others, none of them too short to be worth claiming.
fn num_chunks(
    instruction: &Instruction,
    frame: &mut Frame<'_>,
    units: usize,
    threads: usize,
) -> usize {
    if threads == 1 || units == 1 {
        return 1;
    }
    let unit_ns = match &instruction.op {
        Op::Attend(attention) => {
            let [positions] = frame.indices([attention.positions]);
            let context = positions.iter().max().map_or(0, |&p| p as usize + 1);
            instruction.unit_ns.saturating_mul(context) / ATTEND_CONTEXT
        }
        Op::Product(product) => {
            instruction.unit_ns.saturating_mul(product.rows.of(frame.sizes()).div_ceil(2))
        }
        _ => instruction.unit_ns,
    };
    let total_ns = unit_ns.saturating_mul(units);
    if total_ns < SPLIT_NS_MIN {
        return 1;
    }
    units.min(threads * CHUNKS_PER_THREAD).min((total_ns / CHUNK_NS_MIN).max(2))
}

/// Positions that `unit_ns` of an `attend` stands for.
pub(crate) const ATTEND_CONTEXT: usize = 64;
/// Shorter instructions run on the caller's thread alone.
const SPLIT_NS_MIN: usize = 6_000;
/// A chunk is about this long at least.
const CHUNK_NS_MIN: usize = 2_000;
/// Chunks that a thread claims of a long instruction.
const CHUNKS_PER_THREAD: usize = 4;
