//! The shared vectors: each fed whole, byte by byte, at every split, and with trailing bytes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // a test

use fcgi_core::conn::trace::Trace;
use std::path::Path;

struct Vector<'a> {
    name: &'a str,
    side: &'a str,
    input: Vec<u8>,
    trailing: Vec<u8>,
    events: String,
    output: &'a str,
    error: &'a str,
}

fn unhex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn dash(text: &str) -> &str {
    if text == "-" {
        ""
    } else {
        text
    }
}

fn parse(line: &str) -> Vector<'_> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, side, input, trailing, events, output, error] = fields[..] else { panic!("{line}") };
    let events = dash(events).replace(" | ", "\n");
    Vector {
        name,
        side,
        input: unhex(input),
        trailing: unhex(trailing),
        events,
        output: dash(output),
        error: dash(error),
    }
}

fn run(vector: &Vector<'_>, how: &str, pieces: &[&[u8]]) {
    let mut trace = Trace::new(vector.side).unwrap();
    for piece in pieces {
        trace.feed(piece);
    }
    trace.finish();
    let found = (trace.events().join("\n"), trace.output(), trace.error());
    let wanted = (vector.events.clone(), vector.output.to_owned(), vector.error.to_owned());
    assert_eq!(found, wanted, "{}, {how}", vector.name);
}

#[test]
fn every_vector_in_every_way_of_feeding() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/vectors.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut vectors, mut runs) = (0, 0);
    for line in text.lines() {
        let vector = parse(line);
        vectors += 1;
        run(&vector, "whole", &[&vector.input]);
        let bytes: Vec<&[u8]> = vector.input.chunks(1).collect();
        run(&vector, "byte by byte", &bytes);
        runs += 2;
        for at in 1..vector.input.len() {
            let (left, right) = vector.input.split_at(at);
            run(&vector, &format!("split at {at}"), &[left, right]);
            runs += 1;
        }
        if !vector.trailing.is_empty() {
            run(&vector, "with trailing bytes", &[&[&vector.input[..], &vector.trailing].concat()]);
            runs += 1;
        }
    }
    println!("vectors: {vectors} vectors, {runs} runs, 0 failed");
}
