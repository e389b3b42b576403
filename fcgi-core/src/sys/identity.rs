//! Which process this is, without a system call each time: handles look at it in every call of theirs.
//!
//! glibc gave up caching the pid because fork by other ways than its own left the cache stale. Here the kernel keeps it
//! fresh: the page it stands in is wiped in every child (MADV_WIPEONFORK, Linux 4.14), whoever called fork or clone. Only a
//! child that shares its parent's memory (vfork) is not told apart; it may call nothing but exec.

#[cfg(feature = "fault-injection")]
use super::fault::gate as libc;
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
/// Marks that this kernel does not wipe: then every look is a system call.
static NO_PAGE: AtomicU32 = AtomicU32::new(0);

/// This process's id, as `std::process::id` tells it.
#[inline]
pub fn own_pid() -> u32 {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() || std::ptr::eq(page, &NO_PAGE) {
        return first_look(page);
    }
    // SAFETY: not null and not the marker, so it is the start of the page that `first_look` mapped; it is never unmapped.
    let cell = unsafe { &*page };
    match cell.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            cell.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

#[cold]
fn first_look(page: *mut AtomicU32) -> u32 {
    if page.is_null() {
        let found = wiped_page().map_or((&raw const NO_PAGE).cast_mut(), NonNull::as_ptr);
        // Of two threads that come here at once one page stays unused: a page, once.
        let _ = PAGE.compare_exchange(null_mut(), found, Ordering::AcqRel, Ordering::Acquire);
    }
    std::process::id()
}

fn wiped_page() -> Option<NonNull<AtomicU32>> {
    const LEN: usize = 4096;
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new private mapping at a place that the kernel chooses.
    let at = unsafe { libc::mmap(null_mut(), LEN, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping just made, whole.
    if unsafe { libc::madvise(at, LEN, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: the mapping just made; nobody has its address.
        unsafe { libc::munmap(at, LEN) };
        return None;
    }
    NonNull::new(at.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_sees_its_own_id() {
        assert_eq!(own_pid(), std::process::id());
        assert_eq!(own_pid(), std::process::id());
        // SAFETY: the child calls only getpid and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let good = own_pid() == std::process::id() && own_pid() == std::process::id();
            // SAFETY: ends the child without the test harness's exit handlers.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        let mut status = -1;
        // SAFETY: our child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(own_pid(), std::process::id());
    }
}
