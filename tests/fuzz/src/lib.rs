//! What is fuzzed: each target takes bytes and says by `Err` which promise was broken. A panic is one broken too.
//!
//! Promises: no panic; how the bytes are cut into pieces changes nothing; what is held stays within the limits, whatever
//! lengths are announced; what was understood can be written again and is understood the same.

pub mod alloc;
mod codec;
mod machines;
pub mod plant;
pub mod rng;
mod sockets;
mod texts;

/// Names and values, or header fields and values.
pub type PairList = Vec<(Vec<u8>, Vec<u8>)>;

/// `Ok` has a rough signature of what the input made the target do: an input with a new one is worth keeping.
pub type Outcome = Result<u64, String>;

/// A target: its name, and what it does with an input.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]) -> Outcome,
    /// Whether its inputs are text (the seeds and mutations differ).
    pub text: bool,
}

/// All targets.
pub const TARGETS: [Target; 7] = [
    Target { name: "decoder", run: codec::decoder, text: false },
    Target { name: "params", run: codec::params, text: false },
    Target { name: "conn-responder", run: machines::responder, text: false },
    Target { name: "conn-requester", run: machines::requester, text: false },
    Target { name: "responder", run: sockets::responder, text: false },
    Target { name: "address", run: texts::address, text: true },
    Target { name: "options", run: texts::options, text: true },
];

/// Pieces of `input`, cut by a generator that depends on nothing but the input: a failure can be repeated.
pub fn pieces(input: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut rng = rng::Rng::new(rng::hash(input) ^ seed);
    let (mut rest, mut cut) = (input, Vec::new());
    // Of the three: bytes, a few bytes, anything.
    let most = [1, 9, input.len().max(2)][rng.below(3)];
    while !rest.is_empty() {
        let (now, later) = rest.split_at((1 + rng.below(most)).min(rest.len()));
        cut.push(now);
        rest = later;
    }
    cut
}

/// Says which promise was broken unless `good`.
pub fn promise(good: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if good {
        Ok(())
    } else {
        Err(what())
    }
}

/// For cargo-fuzz: panics where the target's promise was broken.
pub fn check(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    if let Err(why) = (target.run)(input) {
        panic!("{name}: {why}");
    }
}
