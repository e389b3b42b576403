//! Which process this is, without a system call for each question.
//!
//! The number is kept in a page that the kernel gives a forked child filled with zeros (MADV_WIPEONFORK, Linux 4.14), however
//! the child was made. Without such a page every question is a getpid.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

const LEN: usize = 4096;

static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());

/// This process's id.
pub fn pid() -> u32 {
    let page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        make();
        return std::process::id();
    }
    // SAFETY: once set it points to a page of ours that is never unmapped, aligned for any integer; zero is a valid value.
    let kept = unsafe { &*page };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let pid = std::process::id();
            kept.store(pid, Ordering::Relaxed);
            pid
        }
        pid => pid,
    }
}

/// Maps the page; if that fails, questions go on costing a call.
fn make() {
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the mapping just made, whole.
    let wiped = unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) } == 0;
    let ours = page.cast::<AtomicU32>();
    if !wiped || PAGE.compare_exchange(std::ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: as above, and nobody else has seen it.
        unsafe { libc::munmap(page, LEN) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_knows_itself() {
        for _ in 0..3 {
            assert_eq!(pid(), std::process::id());
        }
        // SAFETY: the child calls only what is safe after fork (no allocation, no lock), and leaves by _exit.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(if pid() == libc::getpid() as u32 && pid() == libc::getpid() as u32 { 0 } else { 1 });
            }
            let mut status = -1;
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
            assert_eq!(status, 0);
        }
        assert_eq!(pid(), std::process::id());
    }
}
