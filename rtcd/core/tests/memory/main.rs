//! What a listener costs in memory, and what those who attack cost: everything the core allocates and still holds.

#![cfg(test)]
#![allow(unsafe_code, reason = "a counting allocator has to implement an unsafe trait")]
#![allow(unreachable_pub, dead_code, clippy::wildcard_enum_match_arm, reason = "tests may say what they mean")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rtcd_core::{CallId, Input};

#[path = "../stories/raw.rs"]
mod raw;
#[path = "../stories/world.rs"]
mod world;

use raw::{Raw, body_of, certificate, client_hello, pieces};
use world::{Dice, End, Profile, World, holes, udp};

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

/// One measurement at a time, also where all tests share a process.
static TURN: Mutex<()> = Mutex::new(());

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
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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

/// Attack class R-01: a million packets without a key at a live call, from the publisher's own address.
#[test]
fn a_million_forged_packets_hold_no_memory_and_lose_no_frame() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new(96);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.microphone(ann, "ann");
    world.settle();
    let rtp = world.overheard_rtp(ann, Duration::from_millis(500));
    let from = world.clients[ann].connections[&End::Publish].address;
    let link = udp(from);
    world.clients[ben].heard.clear();
    let mut dice = Dice::new(17);
    world.in_core = |on| IN_CORE.with(|flag| flag.set(on));
    // A second of the call alone: what the call itself comes to hold meanwhile.
    world.run(Duration::from_secs(1));
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..100 {
        for n in 0..10_000u32 {
            let mut packet = rtp[dice.next() as usize % rtp.len()].clone();
            packet[2..4].copy_from_slice(&(dice.next() as u16).to_be_bytes());
            // The live source, few others again and again, and ever new ones; each with the section's name in its header.
            match n % 3 {
                0 => {}
                1 => packet[8..12].copy_from_slice(&(n % 50).to_be_bytes()),
                _ => packet[8..12].copy_from_slice(&(dice.next() as u32).to_be_bytes()),
            }
            let last = packet.len() - 1;
            packet[last] ^= 1;
            IN_CORE.with(|flag| flag.set(true));
            world.core.handle(world.now, Input::Datagram { link, bytes: &mut packet });
            IN_CORE.with(|flag| flag.set(false));
        }
        world.run(Duration::from_millis(20));
    }
    let grown = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    assert!(world.counter("srtp_bad_tag") > 990_000);
    assert!(grown <= 64 * 1024, "{grown} bytes more");
    let heard = world.heard(ben, "TR_ann");
    assert!(heard.len() >= 149, "{}", heard.len());
    assert_eq!(holes(&heard), 0);
}

/// What one peer may hold at most (reliability of the platform: 4 MiB, hard).
const HOSTILE_PEER_MAX: usize = 4 * 1024 * 1024;

/// As many tracks in as many layers as one may publish, each of 9 Mbit/s with losses, ordered off or not, and reliable messages that are not read.
#[test]
fn a_peer_that_does_its_worst_stays_within_its_budget() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new(98);
    let (ann, ben) = (world.join("ann"), world.join("ben"));
    world.open_channels(ann);
    world.open_channels(ben);
    world.camera(ben, "ben", &["q", "h", "f"]);
    world.settle();
    world.in_core = |on| IN_CORE.with(|flag| flag.set(on));
    let before = LIVE.load(Ordering::Relaxed);
    let cameras: Vec<usize> = (0..16).map(|n| world.camera(ann, &format!("cam{n}"), &["q", "h", "f"])).collect();
    world.run(Duration::from_secs(1));
    for camera in &cameras {
        world.producers[*camera].frame_packets = vec![33; 3];
    }
    let mut worst = 0;
    for step in 0..30_u16 {
        for camera in &cameras {
            world.producers[*camera].on = vec![true; 3];
        }
        for _ in 0..4 {
            world.send_message(ben, "_reliable", &[7; 15_000]);
        }
        let loss_up = if step % 3 == 0 { 300 } else { 0 };
        world.set_profile(ann, Profile { loss_up, loss_down: 1000, ..Profile::default() });
        world.run(Duration::from_millis(100));
        for client in &mut world.clients {
            (client.signals, client.heard) = (Vec::new(), Vec::new());
        }
        worst = worst.max(LIVE.load(Ordering::Relaxed).saturating_sub(before));
    }
    println!("{} KiB for the worst peer, {} packets in", worst / 1024, world.counter("packets_received"));
    assert!(worst > 1024 * 1024, "its packets were not kept: {worst}");
    assert!(worst <= HOSTILE_PEER_MAX, "{} KiB", worst / 1024);
}

/// Attack class D-01: what a handshake of fragments that never become a message may hold.
#[test]
fn a_hostile_handshake_stays_within_its_budget() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut world = World::new(97);
    let body = body_of(&client_hello(&world)[0]);
    let shared = certificate();
    let mut worst = 0;
    for n in 0..500u16 {
        let own = CallId::new(&format!("t/hostile{n}")).unwrap();
        let raw = Raw::join_in(&mut world, own, &format!("raw{n}"), n, shared.clone());
        raw.prove(&mut world);
        world.in_core = |on| IN_CORE.with(|flag| flag.set(on));
        let before = LIVE.load(Ordering::Relaxed);
        for round in 0..4 {
            for piece in pieces(u64::from(n) + round * 1000, &body) {
                world.inject(raw.address, &piece);
                worst = worst.max(LIVE.load(Ordering::Relaxed).saturating_sub(before));
            }
        }
        world.in_core = |_| {};
        // One at a time: what all of them share does not grow.
        world.tell(Input::Leave { peer: raw.id });
    }
    println!("{} KiB for the worst handshake", worst / 1024);
    assert!(worst > 1024, "nothing was counted");
    assert!(worst <= 64 * 1024, "{worst} bytes");
}
