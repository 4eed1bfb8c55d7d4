//! What a piece of work takes of the heap, for tests of bounds.
#![allow(unsafe_code, reason = "a counting allocator has to implement an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Held by this thread's work, and the most that it ever was.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The most bytes that `work` held at a time, beyond what was there before.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set((0, 0));
    let done = work();
    (done, HELD.get().1.cast_unsigned())
}

fn held(more: isize) {
    // Threads that end free what they hold when this is gone already.
    let _ = HELD.try_with(|cell| {
        let (now, peak) = cell.get();
        cell.set((now + more, peak.max(now + more)));
    });
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: everything is the system's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        held(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        held(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        held(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new stand side by side while it moves.
        held(size.cast_signed());
        held(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_at_a_time_is_counted() {
        let ((), peak) = peak_of(|| {
            drop(std::hint::black_box(vec![0_u8; 3000]));
            drop(std::hint::black_box(vec![0_u8; 2000]));
        });
        assert_eq!(peak, 3000);
        let (_kept, peak) = peak_of(|| std::hint::black_box((vec![0_u8; 3000], vec![0_u8; 2000])));
        assert_eq!(peak, 5000);
    }
}
