//! The library's allocator: malloc, and when that has nothing left, a small reserve, so that the call in hand ends in order.
//!
//! Rust's collections abort the process when an allocation fails, and an allocator may not unwind; so small allocations do not fail
//! while the reserve lasts. [`short`] tells the next call, which is then refused (`out_of_memory`) before it does anything. A large
//! block is never taken from the reserve: what grows by a peer's doing asks with try_reserve and has an error of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of the reserve. It lies in .bss: without want of memory no page of it is touched.
const SIZE: usize = 1 << 20;
/// No larger block is taken from it, in bytes.
const LARGEST: usize = 128 << 10;
/// Bytes that a bit of [`UNITS`] stands for; the reserve's alignment, and so the largest that is served.
const UNIT: usize = 128;
/// What malloc must be able to give again before a call is let in while the reserve is in use, in bytes.
const ENOUGH: usize = 64 << 10;

#[repr(align(128))]
struct Space(UnsafeCell<[u8; SIZE]>);

// SAFETY: each byte belongs to one block at a time, whose bits of UNITS one caller has set.
unsafe impl Sync for Space {}

static SPACE: Space = Space(UnsafeCell::new([0; SIZE]));

const WORDS: usize = SIZE / UNIT / 64;

/// The units that are taken. Bits are set and cleared a word at a time and there is no lock, so that a child that was forked in the middle
/// can go on.
static UNITS: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// Blocks of the reserve that are in use.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

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

/// The words of a run of units, and the run's bits in each.
fn words(first: usize, count: usize) -> impl Iterator<Item = (usize, u64)> {
    (first / 64..(first + count).div_ceil(64)).map(move |word| {
        let low = first.saturating_sub(word * 64);
        let high = (first + count - word * 64).min(64);
        (word, (u64::MAX >> (64 - (high - low))) << low)
    })
}

/// Takes this run of units, or none of it and says how many units further the next try is worth it.
fn claim(first: usize, count: usize) -> Result<(), usize> {
    // Past what lies in the way, and what lies beside that.
    let further = |word: usize, others: u64, taken: u64| {
        let last = 63 - others.leading_zeros();
        word * 64 + (last + (taken >> last).trailing_ones()) as usize - first
    };
    for (word, bits) in words(first, count) {
        let taken = UNITS[word].load(Ordering::Acquire);
        if taken & bits != 0 {
            return Err(further(word, taken & bits, taken));
        }
    }
    for (word, bits) in words(first, count) {
        let taken = UNITS[word].fetch_or(bits, Ordering::AcqRel);
        if taken & bits == 0 {
            continue;
        }
        // Another thread was faster: what is ours already is given back.
        UNITS[word].fetch_and(!(bits & !taken), Ordering::AcqRel);
        for (before, bits) in words(first, count).take_while(|(at, _)| *at < word) {
            UNITS[before].fetch_and(!bits, Ordering::AcqRel);
        }
        return Err(further(word, taken & bits, taken));
    }
    Ok(())
}

fn take(layout: Layout) -> *mut u8 {
    if layout.size() > LARGEST || layout.align() > UNIT {
        return ptr::null_mut();
    }
    let count = layout.size().div_ceil(UNIT);
    let mut first = 0;
    while first + count <= SIZE / UNIT {
        match claim(first, count) {
            Ok(()) => {
                BLOCKS.fetch_add(1, Ordering::AcqRel);
                return place(first * UNIT);
            }
            Err(further) => first += further,
        }
    }
    ptr::null_mut()
}

fn give_back(at: usize, size: usize) {
    for (word, bits) in words(at / UNIT, size.div_ceil(UNIT)) {
        UNITS[word].fetch_and(!bits, Ordering::AcqRel);
    }
    BLOCKS.fetch_sub(1, Ordering::AcqRel);
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
    if BLOCKS.load(Ordering::Acquire) == 0 {
        return false;
    }
    let Ok(layout) = Layout::from_size_align(ENOUGH, 16) else { return true };
    // SAFETY: the size is not 0; the block goes back untouched.
    unsafe {
        // Else the compiler, which knows malloc and free, leaves both out and takes the block for had.
        let block = std::hint::black_box(System.alloc(layout));
        if !block.is_null() {
            System.dealloc(block, layout);
        }
        block.is_null()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard};

    /// The reserve is one for all.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).unwrap()
    }

    #[test]
    fn all_of_the_reserve_is_given_out_and_what_comes_back_is_given_out_again() {
        let _alone = alone();
        for size in [1, 127, 128, 129, 1000, 8191, 65536, LARGEST] {
            let mut blocks = Vec::with_capacity(SIZE / UNIT);
            loop {
                let block = take(layout(size));
                if block.is_null() {
                    break;
                }
                blocks.push(block);
            }
            assert_eq!(blocks.len(), SIZE / UNIT / size.div_ceil(UNIT), "blocks of {size}");
            // Every second, so that no run is longer than a block, and each place is found again.
            let half: Vec<_> = blocks.iter().copied().step_by(2).collect();
            for block in &half {
                give_back(offset(*block).unwrap(), size);
            }
            for block in &half {
                assert_eq!(take(layout(size)), *block);
            }
            blocks.iter().for_each(|block| give_back(offset(*block).unwrap(), size));
            assert!(UNITS.iter().all(|word| word.load(Ordering::Acquire) == 0) && BLOCKS.load(Ordering::Acquire) == 0);
        }
        assert!(take(layout(LARGEST + 1)).is_null());
    }

    #[test]
    fn threads_never_share_a_byte() {
        let _alone = alone();
        std::thread::scope(|scope| {
            for mark in 1..=4u8 {
                scope.spawn(move || {
                    let mut held: Vec<(*mut u8, usize)> = Vec::with_capacity(64);
                    for turn in 0..20_000usize {
                        let size = 1 + turn.wrapping_mul(7919 * usize::from(mark)) % 3000;
                        let block = take(layout(size));
                        if !block.is_null() {
                            // SAFETY: just taken, `size` bytes.
                            unsafe { block.write_bytes(mark, size) };
                            held.push((block, size));
                        }
                        if held.len() == 64 || turn % 3 == 0 && !held.is_empty() {
                            let (block, size) = held.swap_remove(turn % held.len());
                            // SAFETY: taken above and not given back.
                            assert!(unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|b| *b == mark));
                            give_back(offset(block).unwrap(), size);
                        }
                    }
                    held.iter().for_each(|(block, size)| give_back(offset(*block).unwrap(), *size));
                });
            }
        });
        assert_eq!(BLOCKS.load(Ordering::Acquire), 0);
    }
}
