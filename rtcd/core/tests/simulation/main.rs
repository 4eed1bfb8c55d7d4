//! Random worlds: people come, speak, mute, move, lose their network and go, by a seed; what must always be true is checked
//! after every step, and what must come back is checked once the faults have stopped.
//!
//! `./x sim` plays worlds that nobody has seen yet, `./x sim --seed N` one of them, step by step. A seed gives the same steps, people
//! and network. Not in its hand are DTLS' retransmission timers, with which patient timers of ours go along, and the order of the
//! hash maps in which str0m keeps a publisher's layers: what hangs on milliseconds or on who was first may turn out otherwise, so
//! one world is played several times.

#![cfg(test)]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

#[path = "../stories/world.rs"]
mod world;

mod run;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use run::{FAULTS, Run};

/// Worlds of every test run.
const SEEDS: u64 = 1000;
/// How often a world that is asked for is played.
const PLAYS: u64 = 10;
/// A run that fails so often is ended.
const FAILURES_MAX: usize = 10;

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What came of many worlds.
#[derive(Default)]
struct Tally {
    held: u64,
    failed: Vec<u64>,
    /// Worlds by fault that they met.
    reached: BTreeMap<&'static str, u64>,
}

#[test]
fn random_worlds_hold() {
    silence_planted_bugs();
    if let Some(seed) = asked("SIM_SEED") {
        for play in 1..=PLAYS {
            println!("world {seed}, play {play} of {PLAYS}");
            let reached = Run::new(seed, true).play();
            println!("world {seed} holds; it met {reached:?}");
        }
        return;
    }
    let from = asked("SIM_FROM").unwrap_or(0);
    let seeds = asked("SIM_SEEDS").unwrap_or(SEEDS);
    let (next, tally) = (AtomicU64::new(from), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| work(&next, from + seeds, &tally));
        }
    });
    let Tally { held, failed, reached } = tally.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {seeds} worlds failed; see one step by step with: ./x sim --seed {}", failed.len(), failed[0]);
    println!("{held} worlds hold, from seed {from} on; faults met: {reached:?}");
    // A simulator is as good as the faults that it reaches.
    if held >= 100 {
        for fault in FAULTS {
            let times = reached.get(fault).copied().unwrap_or_default();
            assert!(times * 100 >= held, "{fault} came in {times} of {held} worlds only");
        }
    }
}

/// Plays one world after the other.
fn work(next: &AtomicU64, end: u64, tally: &Mutex<Tally>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || tally.lock().unwrap().failed.len() >= FAILURES_MAX {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| Run::new(seed, false).play()));
        let mut tally = tally.lock().unwrap();
        match result {
            Ok(faults) => {
                tally.held += 1;
                faults.into_iter().for_each(|fault| *tally.reached.entry(fault).or_default() += 1);
            }
            Err(_) => {
                println!("world {seed} failed");
                tally.failed.push(seed);
            }
        }
        if tally.held.is_multiple_of(1000) {
            println!("{} worlds hold", tally.held);
        }
    }
}

/// They are caught by the core, and thousands of them are no news.
fn silence_planted_bugs() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str() != Some("planted by a test") {
            tell(info);
        }
    }));
}
