//! The library's allocator: malloc, and when that has nothing left, a small reserve, so that the call in hand ends in order.
//!
//! Rust's collections abort the process when an allocation fails, and an allocator may not unwind; so small allocations do not fail
//! while the reserve lasts. [`short`] tells the next call, which is then refused (`out_of_memory`) before it does anything. A large
//! block is never taken from the reserve: what grows by a peer's doing asks with try_reserve and has an error of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the reserve. It lies in .bss: without want of memory no page of it is touched.
const SIZE: usize = 1 << 20;
/// No larger block is taken from it, in bytes.
const LARGEST: usize = 128 << 10;
/// Alignment of the reserve, and the largest that is served.
const ALIGN: usize = 64;
/// What malloc must be able to give again before a call is let in while the reserve is in use, in bytes.
const ENOUGH: usize = 64 << 10;

#[repr(align(64))]
struct Space(UnsafeCell<[u8; SIZE]>);

// SAFETY: each byte belongs to one block at a time, given out by a compare-and-swap on TAKEN.
unsafe impl Sync for Space {}

static SPACE: Space = Space(UnsafeCell::new([0; SIZE]));

/// Blocks that are in use (upper half) and the end of the last one (lower half): one word, so that it is right in every thread, and in a
/// child that was forked in the middle.
static TAKEN: AtomicU64 = AtomicU64::new(0);

struct WithReserve;

#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve;

fn place(at: usize) -> *mut u8 {
    SPACE.0.get().cast::<u8>().wrapping_add(at)
}

/// Where in the reserve a block lies; None for malloc's.
fn offset(block: *mut u8) -> Option<usize> {
    (block as usize).checked_sub(place(0) as usize).filter(|at| *at < SIZE)
}

fn take(layout: Layout) -> *mut u8 {
    if layout.size() > LARGEST || layout.align() > ALIGN {
        return ptr::null_mut();
    }
    let mut taken = TAKEN.load(Ordering::Acquire);
    loop {
        let (blocks, end) = (taken >> 32, (taken & 0xffff_ffff) as usize);
        let at = end.next_multiple_of(layout.align().max(16));
        if at + layout.size() > SIZE {
            return ptr::null_mut();
        }
        let next = (blocks + 1) << 32 | (at + layout.size()) as u64;
        match TAKEN.compare_exchange_weak(taken, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return place(at),
            Err(now) => taken = now,
        }
    }
}

/// The last block's room is free at once, that of the others when all are given back.
fn give_back(at: usize, size: usize) {
    let mut taken = TAKEN.load(Ordering::Acquire);
    loop {
        let (blocks, end) = ((taken >> 32).saturating_sub(1), taken & 0xffff_ffff);
        let end = match blocks {
            0 => 0,
            _ if end == (at + size) as u64 => at as u64,
            _ => end,
        };
        match TAKEN.compare_exchange_weak(taken, blocks << 32 | end, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => taken = now,
        }
    }
}

// SAFETY: blocks are malloc's, or parts of the reserve that no two blocks share and that are aligned and large enough; each goes back
// where it came from. Nothing here allocates or unwinds.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duty.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() {
            take(layout)
        } else {
            block
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's duty.
        let block = unsafe { System.alloc_zeroed(layout) };
        if !block.is_null() {
            return block;
        }
        let block = take(layout);
        if !block.is_null() {
            // SAFETY: just taken, `size` bytes; it may have been used before.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match offset(block) {
            Some(at) => give_back(at, layout.size()),
            // SAFETY: not of the reserve, so malloc's; the rest is the caller's duty.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let reserved = offset(block).is_some();
        if !reserved {
            // SAFETY: malloc's; the rest is the caller's duty.
            let moved = unsafe { System.realloc(block, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: `size` is not 0 and fits with this alignment by the caller's duty; both blocks are live and apart.
        unsafe {
            let layout_of_new = Layout::from_size_align_unchecked(size, layout.align());
            let moved = if reserved { self.alloc(layout_of_new) } else { take(layout_of_new) };
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Whether memory has ended: the reserve is in use, and malloc still has nothing. Costs one load as long as all is well.
pub fn short() -> bool {
    if TAKEN.load(Ordering::Acquire) == 0 {
        return false;
    }
    let Ok(layout) = Layout::from_size_align(ENOUGH, 16) else { return true };
    // SAFETY: the size is not 0; the block goes back untouched.
    unsafe {
        let block = System.alloc(layout);
        if !block.is_null() {
            System.dealloc(block, layout);
        }
        block.is_null()
    }
}
