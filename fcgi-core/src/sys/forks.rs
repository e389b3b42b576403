//! Whether this process has forked, or started threads: two facts that the C library knows and no system call tells.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

/// Forks of this process so far.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Another number in a child than in its parent.
static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_parent() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    super::signal::forget_leave_wake();
}

/// Starts to count; once for the process.
pub fn watch() {
    static ONCE: Once = Once::new();
    // SAFETY: the handlers touch atomics and close a descriptor; the C library forgets them when this library is unloaded.
    ONCE.call_once(|| unsafe {
        libc::pthread_atfork(None, Some(in_parent), Some(in_child));
    });
}

/// A moment in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    generation: u32,
    forks: u32,
}

impl Moment {
    /// Now. Counted from [`watch`] on.
    pub fn now() -> Moment {
        Moment { generation: GENERATION.load(Ordering::Relaxed), forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Whether this process, which is the same, has forked since: a child may have what was open then.
    pub fn forked_since(self) -> bool {
        let now = Moment::now();
        now.generation == self.generation && now.forks != self.forks
    }
}

/// Whether this process has one thread only. Where the C library does not tell (others than glibc 2.32 and later): true.
pub fn single_threaded() -> bool {
    static FLAG: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name is a C string; dlsym gives null or the address of glibc's variable, which lives as long as the process.
    let flag =
        *FLAG.get_or_init(|| unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr()) as usize });
    if flag == 0 {
        return true;
    }
    // SAFETY: the address of a char that glibc changes while nothing else runs, or from true to false before a thread starts.
    unsafe { std::ptr::read_volatile(flag as *const libc::c_char) != 0 }
}
