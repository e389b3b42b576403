//! The clocks. Only driver files call these; everything that decides is given the time.

/// Milliseconds of the monotonic clock. Comparable between the processes of one boot; never goes back.
pub fn monotonic_ms() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC);
    now.0 * 1000 + now.1 / 1_000_000
}

/// Nanoseconds of the monotonic clock, for measuring.
pub fn monotonic_ns() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC);
    now.0 * 1_000_000_000 + now.1
}

/// Milliseconds of the monotonic clock at tick resolution (a few ms): the cheapest reading, for the request path.
pub fn monotonic_coarse_ms() -> u64 {
    let now = read(libc::CLOCK_MONOTONIC_COARSE);
    now.0 * 1000 + now.1 / 1_000_000
}

/// Milliseconds since 1970, for people and logs only.
pub fn wall_ms() -> u64 {
    let now = read(libc::CLOCK_REALTIME);
    now.0 * 1000 + now.1 / 1_000_000
}

fn read(clock: libc::clockid_t) -> (u64, u64) {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `spec` is a valid timespec for the kernel to fill; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut spec) };
    (u64::try_from(spec.tv_sec).unwrap_or(0), u64::try_from(spec.tv_nsec).unwrap_or(0))
}
