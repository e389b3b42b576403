//! Bugs to plant: a fuzzer that finds none of them finds nothing. `--plant NAME` puts one into its target.

use std::sync::atomic::{AtomicU8, Ordering};

/// Name, target, and what is broken.
pub const PLANTS: [(&str, &str, &str); 7] = [
    ("lost-byte", "decoder", "a piece that ends within a header loses its last byte"),
    ("signed-length", "params", "the top bit of a long length is kept, as in peers that read it as a number"),
    ("trusting", "conn-responder", "memory for the announced length is taken, and kept, before its bytes are there"),
    ("eager-end", "conn-requester", "END_REQUEST that arrives in pieces is told at its first piece"),
    ("no-end", "responder", "after a request with three params the next one is not answered"),
    ("colon", "address", "an address with three colons and a bracket panics"),
    ("wrap", "options", "a number above 2^31 wraps"),
];

static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a bug; false if there is none of that name.
pub fn plant(name: &str) -> bool {
    let at = PLANTS.iter().position(|(known, ..)| *known == name);
    PLANTED.store(at.map_or(0, |at| at as u8 + 1), Ordering::Relaxed);
    at.is_some()
}

/// Whether that bug is planted.
pub fn planted(name: &str) -> bool {
    let planted = PLANTED.load(Ordering::Relaxed);
    planted != 0 && PLANTS[usize::from(planted) - 1].0 == name
}

/// Whether any is.
pub fn any() -> bool {
    PLANTED.load(Ordering::Relaxed) != 0
}
