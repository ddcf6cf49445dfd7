//! What taking and giving back a block costs: the bitmap beside a free list, and one behind a mutex.
//!
//! The pool is half full, and blocks come back in another order than they went. Compare within one
//! run only: machines differ, ratios travel.

use std::sync::Mutex;

use divan::{Bencher, black_box};
use plugin_api::kinds::kv_cache::Bitmap;

const BLOCKS: u32 = 8192;

fn main() {
    divan::main();
}

/// Blocks that are taken from the start, in the order of a long-running pool.
fn scattered() -> impl Iterator<Item = u32> {
    (0..BLOCKS).map(|i| i.wrapping_mul(2_654_435_761) % BLOCKS).take(BLOCKS as usize / 2)
}

/// The bitmap, from one thread and from as many as the machine has.
#[divan::bench(threads = [1, 0])]
fn bitmap(bencher: Bencher<'_, '_>) {
    let pool = Bitmap::new(BLOCKS as usize);
    let taken = (0..BLOCKS / 2).filter_map(|_| pool.take()).count();
    assert_eq!(taken, BLOCKS as usize / 2, "half of the pool is in use");
    bencher.bench(|| {
        let block = pool.take().unwrap_or_default();
        pool.give(black_box(block));
    });
}

/// A list behind a mutex, likewise.
#[divan::bench(threads = [1, 0])]
fn mutex_free_list(bencher: Bencher<'_, '_>) {
    let pool = Mutex::new(scattered().collect::<Vec<u32>>());
    bencher.bench(|| {
        let block = pool.lock().map(|mut free| free.pop().unwrap_or_default()).unwrap_or_default();
        if let Ok(mut free) = pool.lock() {
            free.push(black_box(block));
        }
    });
}

/// The floor: a list that belongs to one thread.
#[divan::bench]
fn free_list(bencher: Bencher<'_, '_>) {
    let mut free: Vec<u32> = scattered().collect();
    bencher.bench_local(|| {
        let block = free.pop().unwrap_or_default();
        free.push(black_box(block));
    });
}

/// A sequence of 64 blocks comes and goes, as a request does.
#[divan::bench(threads = [1, 0])]
fn bitmap_of_a_sequence(bencher: Bencher<'_, '_>) {
    let pool = Bitmap::new(BLOCKS as usize);
    bencher.with_inputs(|| Vec::with_capacity(64)).bench_values(|mut table: Vec<u32>| {
        table.extend((0..64).filter_map(|_| pool.take()));
        table.iter().rev().for_each(|block| pool.give(*block));
    });
}

/// The same with the list behind a mutex.
#[divan::bench(threads = [1, 0])]
fn mutex_free_list_of_a_sequence(bencher: Bencher<'_, '_>) {
    let pool = Mutex::new((0..BLOCKS).rev().collect::<Vec<u32>>());
    bencher.with_inputs(|| Vec::with_capacity(64)).bench_values(|mut table: Vec<u32>| {
        for _ in 0..64 {
            table.extend(pool.lock().ok().and_then(|mut free| free.pop()));
        }
        for block in table.iter().rev() {
            if let Ok(mut free) = pool.lock() {
                free.push(*block);
            }
        }
    });
}
