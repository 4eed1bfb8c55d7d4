//! What one more listener costs in memory: everything the core allocates for it and still holds once the call runs.

#![allow(unsafe_code, reason = "a counting allocator has to implement an unsafe trait")]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests may say what they mean"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[path = "../stories/world.rs"]
mod world;

use world::World;

/// Target of this project for a listener of an audio call.
const PER_PEER_MAX: usize = 150 * 1024;

thread_local! {
    static IN_CORE: Cell<bool> = const { Cell::new(false) };
}

/// Open addressing: pointers that the core allocated, with their sizes.
const PLACES: usize = 1 << 18;
static POINTERS: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];
static SIZES: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// A place whose pointer is gone; searches go on behind it.
const GONE: usize = 1;

struct Counting;

fn place_of(pointer: usize) -> usize {
    (pointer >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - 18)
}

fn note(pointer: usize, size: usize) {
    for step in 0..PLACES {
        let at = (place_of(pointer) + step) % PLACES;
        let known = POINTERS[at].load(Ordering::Relaxed);
        if known <= GONE && POINTERS[at].compare_exchange(known, pointer, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            SIZES[at].store(size, Ordering::Relaxed);
            LIVE.fetch_add(size, Ordering::Relaxed);
            return;
        }
    }
}

fn forget(pointer: usize) {
    for step in 0..PLACES {
        let at = (place_of(pointer) + step) % PLACES;
        let known = POINTERS[at].load(Ordering::Relaxed);
        if known == 0 {
            return;
        }
        if known == pointer {
            LIVE.fetch_sub(SIZES[at].load(Ordering::Relaxed), Ordering::Relaxed);
            POINTERS[at].store(GONE, Ordering::Relaxed);
            return;
        }
    }
}

// SAFETY: everything is passed on to the system's allocator; noting a pointer allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let pointer = unsafe { System.alloc(layout) };
        if IN_CORE.with(Cell::get) {
            note(pointer as usize, layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        forget(pointer as usize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_audio_listener_stays_within_its_budget() {
    let mut world = World::new(95);
    world.in_core = |on| IN_CORE.with(|flag| flag.set(on));
    let speakers: Vec<usize> = (0..3).map(|n| world.join(&format!("speaker{n}"))).collect();
    for speaker in speakers {
        world.microphone(speaker, &format!("mic{speaker}"));
    }
    for n in 0..5 {
        world.join(&format!("first{n}"));
    }
    world.run(Duration::from_secs(3));
    let before = LIVE.load(Ordering::Relaxed);
    for n in 0..20 {
        world.join(&format!("more{n}"));
    }
    world.run(Duration::from_secs(3));
    // The world keeps descriptions it was given; those are the shell's memory, not the core's.
    for client in &mut world.clients {
        client.signals = Vec::new();
    }
    let per_peer = (LIVE.load(Ordering::Relaxed) - before) / 20;
    assert!(world.clients.iter().all(|client| client.connections.values().all(|connection| connection.connected)));
    println!("{} KiB per audio listener", per_peer / 1024);
    // Less than a transport's own tables would mean that nothing was counted. Keys inside the crypto library are not: about 8 KiB.
    assert!(per_peer > 4 * 1024);
    assert!(per_peer <= PER_PEER_MAX, "{} KiB per peer", per_peer / 1024);
}
