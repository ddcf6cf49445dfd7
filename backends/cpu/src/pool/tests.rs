//! Every chunk once, panics contained, threads that come and go.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

#[test]
fn runs_every_chunk_once() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads).unwrap();
        let crew = pool.crew();
        assert_eq!(crew.threads(), threads);
        for chunks in [0, 1, 2, 3, 64, 257] {
            for _ in 0..50 {
                let counts: Vec<AtomicU32> = (0..chunks).map(|_| AtomicU32::new(0)).collect();
                let count = |chunk: usize| {
                    counts[chunk].fetch_add(1, Ordering::Relaxed);
                };
                crew.run(chunks, &count).unwrap();
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }
}

#[test]
fn wakes_threads_that_sleep() {
    let pool = Pool::new(3).unwrap();
    let crew = pool.crew();
    for _ in 0..20 {
        while !pool.shared.asleep.iter().all(|asleep| asleep.load(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
        // Chunks that wait for each other need three threads.
        let arrived = AtomicUsize::new(0);
        let meet = |_| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 3 {
                std::thread::yield_now();
            }
        };
        crew.run(3, &meet).unwrap();
    }
}

#[test]
fn a_panic_of_a_worker_is_an_error_and_the_pool_goes_on() {
    let pool = Pool::new(2).unwrap();
    let crew = pool.crew();
    let caller = std::thread::current().id();
    for _ in 0..20 {
        // The caller keeps its chunk until the worker has panicked with the other one.
        let has_panicked = AtomicUsize::new(0);
        let job = |_| {
            if std::thread::current().id() != caller {
                has_panicked.store(1, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("a test's own"));
            }
            while has_panicked.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
        };
        let error = crew.run(2, &job).unwrap_err();
        assert!(matches!(error, Error::Outside { .. }), "{error}");
        assert_eq!(crew.run(8, &|_| ()), Ok(()));
    }
}

#[test]
fn a_panic_of_the_caller_waits_for_the_workers() {
    let pool = Pool::new(2).unwrap();
    let crew = pool.crew();
    let caller = std::thread::current().id();
    let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let job = |_| {
        if std::thread::current().id() == caller {
            while started.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            std::panic::resume_unwind(Box::new("a test's own"));
        }
        started.store(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
        ended.store(1, Ordering::SeqCst);
    };
    assert!(catch_unwind(AssertUnwindSafe(|| crew.run(2, &job))).is_err());
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert_eq!(crew.run(8, &|_| ()), Ok(()));
}

#[test]
fn a_second_crew_is_its_caller_alone() {
    let pool = Pool::new(3).unwrap();
    let first = pool.crew();
    assert_eq!(pool.crew().threads(), 1);
    assert_eq!(first.threads(), 3);
    drop(first);
    assert_eq!(pool.crew().threads(), 3);
}

#[test]
fn ends_its_threads_a_hundred_times() {
    for _ in 0..100 {
        let pool = Pool::new(3).unwrap();
        let shared = Arc::downgrade(&pool.shared);
        pool.crew().run(3, &|_| ()).unwrap();
        drop(pool);
        assert!(shared.upgrade().is_none(), "a thread is left");
    }
}
