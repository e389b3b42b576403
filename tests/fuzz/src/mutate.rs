//! Mutations: of bytes, of pieces, and of what a record's header and a pair's lengths say.

use fcgi_core::address::Address;
use fcgi_core::manager::options::OPTIONS;
use fcgi_fuzz::rng::Rng;
use fcgi_fuzz::Target;

/// Longer inputs find nothing that these do not.
const MOST: usize = 8192;

/// Seeds of the targets that read text.
pub fn texts(target: &str) -> Vec<String> {
    const ADDRESSES: [&str; 16] = [
        "/run/a.sock",
        "unix:/run/a.sock",
        "unix:@abstract",
        "127.0.0.1:9000",
        ":9000",
        "[::1]:9000",
        "localhost:80",
        "fd:3",
        "systemd:web",
        "host:65535",
        "[fe80::1%eth0]:1",
        "unix:",
        "fd:-1",
        "a:b:c",
        "[::ffff:1.2.3.4]:0",
        "./relative",
    ];
    const VALUES: [&str; 14] = [
        "5s",
        "250ms",
        "2m",
        "64M",
        "1G",
        "1",
        "0",
        "no",
        "0660",
        "1.5",
        "HUP=drain,USR1=reopen",
        "auto",
        "4294967296",
        "18446744073709551615",
    ];
    debug_assert!(ADDRESSES[0].parse::<Address>().is_ok());
    if target == "address" {
        return ADDRESSES.iter().map(|text| (*text).to_owned()).collect();
    }
    let mut seeds = Vec::new();
    for (at, option) in OPTIONS.iter().enumerate() {
        seeds.push(format!("{}={}", option.name, option.default));
        seeds.push(format!("{}={}\n{}={}", option.name, VALUES[at % 14], option.name, VALUES[(at + 5) % 14]));
    }
    seeds
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    if !bytes.is_empty() {
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
}

fn interesting(rng: &mut Rng) -> u8 {
    [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 127, 128, 129, 254, 255][rng.below(16)]
}

/// Where the records of a well-formed beginning start.
fn headers(bytes: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(&[1, _, _, _, high, low, padding, _]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        found.push(at);
        at += 8 + usize::from(high) * 256 + usize::from(low) + usize::from(padding);
    }
    found
}

fn record(rng: &mut Rng) -> Vec<u8> {
    let kind = 1 + rng.below(12) as u8;
    let content: Vec<u8> = match kind {
        1 => vec![0, 1 + rng.below(4) as u8, rng.below(2) as u8, 0, 0, 0, 0, 0],
        3 => vec![0, 0, 0, interesting(rng), rng.below(5) as u8, 0, 0, 0],
        4 | 9 | 10 => {
            [&b"\x0f\x00FCGI_MPXS_CONNS"[..], b"\x0e\x01CONTENT_LENGTH3", b"\x01\x01ab", b""][rng.below(4)].to_vec()
        }
        _ => vec![b'x'; [0, 1, 8, 300][rng.below(4)]],
    };
    let (id, padding) = ([0, 1, 1, 1, 2, 3][rng.below(6)], rng.below(9) as u8);
    let mut bytes = vec![1, kind, 0, id, (content.len() >> 8) as u8, content.len() as u8, padding, 0];
    bytes.extend(content);
    bytes.extend(vec![0; padding.into()]);
    bytes
}

fn once(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], text: bool, rng: &mut Rng) {
    let at = rng.below(bytes.len() + 1);
    let starts = headers(bytes);
    match rng.below(if text { 8 } else { 14 }) {
        0 => flip(bytes, rng),
        1 if !bytes.is_empty() => {
            let at = at.min(bytes.len() - 1);
            bytes[at] = if text { b"0123456789:/[]=.,-smhMGk%@ \n"[rng.below(28)] } else { interesting(rng) };
        }
        2 => bytes.truncate(at),
        3 => {
            let end = (at + 1 + rng.below(16)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        // A piece of another input, put in or over.
        4 | 5 => {
            let other = &corpus[rng.below(corpus.len())];
            let from = rng.below(other.len() + 1);
            let piece = other[from..(from + 1 + rng.below(64)).min(other.len())].to_vec();
            let end = if rng.below(2) == 0 { at } else { (at + piece.len()).min(bytes.len()) };
            bytes.splice(at..end, piece);
        }
        6 => {
            let end = (at + 1 + rng.below(32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        7 => {
            let piece = corpus[rng.below(corpus.len())].clone();
            bytes.extend(piece);
        }
        // A field of a record's header: type, id, length, padding.
        8 | 9 if !starts.is_empty() => {
            let start = starts[rng.below(starts.len())];
            bytes[start + 1 + rng.below(6)] = interesting(rng);
        }
        // A record left out, doubled, moved to the end, or a new one put in.
        10 if !starts.is_empty() => {
            let which = rng.below(starts.len());
            let end = starts.get(which + 1).copied().unwrap_or(bytes.len()).min(bytes.len());
            let piece: Vec<u8> = bytes[starts[which]..end].to_vec();
            match rng.below(3) {
                0 => drop(bytes.drain(starts[which]..end)),
                1 => drop(bytes.splice(end..end, piece)),
                _ => bytes.extend(piece),
            }
        }
        11 => {
            let place = if starts.is_empty() { bytes.len() } else { starts[rng.below(starts.len())] };
            bytes.splice(place..place, record(rng));
        }
        12 => bytes.extend(record(rng)),
        // A pair's length in its long form.
        13 if at < bytes.len() => {
            let length = u32::from(bytes[at]) | 0x8000_0000 | if rng.below(4) == 0 { rng.draw() as u32 } else { 0 };
            bytes.splice(at..=at, length.to_be_bytes());
        }
        _ => flip(bytes, rng),
    }
}

/// An input made from the corpus by one to eight mutations.
pub fn mutate(corpus: &[Vec<u8>], target: &Target, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = corpus[rng.below(corpus.len())].clone();
    for _ in 0..1 + rng.below(8) {
        once(&mut bytes, corpus, target.text, rng);
    }
    bytes.truncate(MOST);
    bytes
}
