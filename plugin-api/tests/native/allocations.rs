//! What is called in every step allocates nothing once it is warm, on either side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use plugin_api::kinds::backend::{Backend, Bindings, Buf, Fence, StreamId};
use plugin_api::kinds::logits_processor::RowAccess;
use plugin_api::prelude::*;
use plugin_api::{TensorMut, TensorRef};

use crate::backend::{Weight, compiled};
use crate::rig::import;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as for this function.
        unsafe { System.dealloc(start, layout) };
    }
}

/// How often the current thread allocates in calls after the second.
fn allocations(mut call: impl FnMut()) -> usize {
    call();
    call();
    let before = COUNT.get();
    assert!(before > 0, "counts");
    (0..10).for_each(|_| call());
    COUNT.get() - before
}

#[test]
fn runs_of_a_backend() {
    let (backend, _) = import::<dyn Backend>(&Config::new());
    let exe = compiled(&*backend).unwrap();
    let (x, ids, weights) = ([1.0; 8], [1; 8], [Arc::new(Weight([1; 4])) as Buf]);
    let (mut out, mut state, mut scratch) = ([0.0; 8], [0; 1], [0; 64]);
    let count = allocations(|| {
        let mut bind = Bindings {
            sizes: &[8],
            inputs: &[TensorRef::F32(&x), TensorRef::U32(&ids)],
            weights: &weights,
            state: &mut state,
            scratch: &mut scratch,
            outputs: &mut [TensorMut::F32(&mut out)],
        };
        assert_eq!(backend.run(&exe, StreamId(0), &mut bind), Ok(Fence::Done));
    });
    assert_eq!((count, state[0]), (0, 12));
}

#[test]
fn plans_and_observations_of_a_strategy() {
    let (mut strategy, _) = import::<dyn DecodingStrategy>(&Config::new());
    let request = RequestView { seq: SeqId(0), prompt: &[1, 2, 3], params: &Config::new() };
    strategy.open(GroupId(0), &request).unwrap();
    let (mut evals, mut actions) = (Evals::default(), Actions::default());
    let outcome = Outcome { seq: SeqId(0), token: Some(1), logprob: 0.0, draft: None };
    let count = allocations(|| {
        evals.clear();
        actions.list.clear();
        strategy.plan(GroupId(0), &mut evals).unwrap();
        strategy.observe(GroupId(0), &[outcome], &mut actions).unwrap();
    });
    assert_eq!((count, evals.list.len(), actions.list.len()), (0, 5, 8));
}

#[test]
fn reservations_and_copies_of_a_cache() {
    let (mut cache, _) = import::<dyn KvCache>(&Config::new());
    let limits = PoolLimits { num_seqs_max: 4, tokens_per_seq_max: 8, size_bytes_max: 4096 };
    cache.pool(&[], &limits).unwrap();
    let mut moves = Vec::new();
    let count = allocations(|| {
        moves.clear();
        let blocks = cache.reserve(SeqId(1), 5, &mut moves).unwrap();
        assert_eq!(blocks, [2, 3]);
        cache.commit(SeqId(1), 1, &mut moves);
        cache.fork(SeqId(1), SeqId(2), &mut moves).unwrap();
        cache.tick(1, &mut moves);
        cache.release(SeqId(1), 0);
        assert!(cache.usage().used > 0);
    });
    assert_eq!((count, moves.len()), (0, 4));
}

#[test]
fn choices_of_a_scheduler() {
    let (mut scheduler, _) = import::<dyn Scheduler>(&Config::new());
    let waiting =
        Waiting { seq: SeqId(0), pending: 3, is_running: true, is_atomic: false, priority: 0 };
    let (queue, limits) = ([waiting; 9], Limits { tokens: 20, seqs: 9 });
    let mut picked = Vec::new();
    let count = allocations(|| {
        picked.clear();
        scheduler.pick(&queue, &limits, &mut picked).unwrap();
    });
    assert_eq!((count, picked.len()), (0, 7));
}

/// Rows that answer from what lies here already.
struct Ready {
    logits: [f32; 16],
    top: [(u32, f32); 3],
}

impl RowAccess for Ready {
    fn num_rows(&self) -> usize {
        2
    }

    fn id(&self, row: usize) -> RowId {
        RowId(row as u32)
    }

    fn vocab_size(&self) -> usize {
        self.logits.len()
    }

    fn max(&mut self, _row: usize) -> f32 {
        1.0
    }

    fn log_sum_exp(&mut self, _row: usize) -> f32 {
        2.0
    }

    fn logit(&mut self, _row: usize, token: u32) -> f32 {
        self.logits.get(token as usize).copied().unwrap_or(0.0)
    }

    fn top_k(&mut self, _row: usize, k: usize) -> &[(u32, f32)] {
        &self.top[..k]
    }

    fn scale(&mut self, _row: usize, _by: f32) {}

    fn set(&mut self, _row: usize, token: u32, logit: f32) {
        self.logits[token as usize] = logit;
    }

    fn keep_above(&mut self, _row: usize, _threshold: f32) {}

    fn keep_top_k(&mut self, _row: usize, _k: usize) {}

    fn keep_top_p(&mut self, _row: usize, _p: f32) {}

    fn mask(&mut self, _row: usize, _allowed: &[u32]) {}

    fn whole(&mut self, _row: usize) -> &mut [f32] {
        &mut self.logits
    }
}

#[test]
fn edits_of_a_logits_processor() {
    let (mut processor, _) = import::<dyn LogitsProcessor>(&Config::new());
    let mut rows = Ready { logits: [0.0; 16], top: [(3, 1.0), (2, 1.0), (1, 1.0)] };
    let count = allocations(|| {
        processor.batch(&BatchChange::Advanced { row: RowId(1), token: 1 }).unwrap();
        processor.apply(&mut LogitsRows::new(&mut rows)).unwrap();
    });
    // The tokens of the largest, and twelve advances of the row that was edited last.
    assert_eq!((count, rows.logits[3]), (0, 6.0 + 12.0));
}
