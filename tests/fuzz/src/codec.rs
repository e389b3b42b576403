//! Decoder and params.

use crate::plant::planted;
use crate::{alloc, pieces, promise, rng, Outcome, PairList};
use fcgi_core::decode::Decoder;
use fcgi_core::limits::Limits;
use fcgi_core::params::{encode_pair, Pairs, Params};
use fcgi_core::record::{Header, ProtocolError};

struct Record {
    header: Header,
    at: u64,
    content: Vec<u8>,
    whole: bool,
}

type Decoded = (Vec<Record>, Option<ProtocolError>, u64, Result<(), ProtocolError>);

fn decode(cut: &[&[u8]]) -> Result<Decoded, String> {
    let (mut decoder, mut records, mut error) = (Decoder::new(), Vec::<Record>::new(), None);
    'pieces: for piece in cut {
        let mut rest: &[u8] = piece;
        if planted("lost-byte") && decoder.at_boundary() && rest.len() < 8 && cut.len() > 1 {
            rest = &rest[..rest.len().saturating_sub(1)];
        }
        loop {
            match decoder.next(&mut rest) {
                Ok(Some(chunk)) => {
                    if chunk.first {
                        records.push(Record { header: chunk.header, at: chunk.at, content: Vec::new(), whole: false });
                    }
                    let record = records.last_mut().ok_or("a piece of no record")?;
                    promise(record.at == chunk.at, || "a piece belongs to another record".into())?;
                    record.content.extend_from_slice(chunk.bytes);
                    record.whole = chunk.last;
                }
                Ok(None) => break,
                Err(found) => {
                    error = Some(found);
                    break 'pieces;
                }
            }
        }
        promise(rest.is_empty(), || "the decoder asks for more and leaves bytes".into())?;
    }
    Ok((records, error, decoder.offset(), decoder.finish()))
}

pub fn decoder(input: &[u8]) -> Outcome {
    let (records, error, offset, finish) = decode(&[input])?;
    let (cut_records, cut_error, cut_offset, cut_finish) = decode(&pieces(input, 1))?;
    promise(error == cut_error, || format!("whole {error:?}, cut {cut_error:?}"))?;
    promise(records.len() == cut_records.len(), || {
        format!("{} records whole, {} cut", records.len(), cut_records.len())
    })?;
    if error.is_none() {
        promise((offset, &finish) == (cut_offset, &cut_finish), || {
            format!("ends at {offset} whole, {cut_offset} cut")
        })?;
        promise(offset == input.len() as u64, || format!("{offset} of {} bytes taken", input.len()))?;
    }
    let mut signature = error.as_ref().map_or(0, |_| 1) + (u64::from(finish.is_err()) << 1);
    for (a, b) in records.iter().zip(&cut_records) {
        promise(a.header == b.header && a.at == b.at && a.content == b.content && a.whole == b.whole, || {
            format!("record at {} differs when cut", a.at)
        })?;
        promise(!a.whole || a.content.len() == usize::from(a.header.content_len), || {
            "a record of another length".into()
        })?;
        // Written again it is what came, but for the reserved byte.
        let at = a.at as usize;
        let came = input.get(at..at + 7).ok_or("a record from beyond the input")?;
        promise(a.header.encode()[..7] == *came, || format!("header at {at} is not what came"))?;
        promise(input[at + 8..].starts_with(&a.content), || format!("content at {at} is not what came"))?;
        if a.at > 64 {
            continue;
        }
        signature = signature.wrapping_mul(31) + u64::from(a.header.kind) + u64::from(a.header.content_len == 0) * 16;
    }
    Ok(signature)
}

pub const LIMITS: Limits = Limits {
    params_bytes: 4096,
    params_count: 64,
    name_len: 256,
    value_len: 2048,
    active_requests: 4,
    values_bytes: 512,
};

fn pairs_of(input: &[u8]) -> (PairList, Option<ProtocolError>) {
    let mut pairs = Vec::new();
    for pair in Pairs::with_limits(input, LIMITS) {
        match pair {
            Ok((name, value)) => pairs.push((name.to_vec(), value.to_vec())),
            Err(error) => return (pairs, Some(error)),
        }
    }
    (pairs, None)
}

/// The planted bug's way to read a pair: a long length as it stands.
fn naive(input: &[u8]) -> usize {
    match input {
        [a, b, c, d, ..] if *a >= 128 => u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        [a, ..] => usize::from(*a),
        [] => 0,
    }
}

pub fn params(input: &[u8]) -> Outcome {
    let (pairs, error) = pairs_of(input);
    if let Some(error) = &error {
        promise(error.offset <= input.len() as u64, || format!("an error at {} of {}", error.offset, input.len()))?;
    } else {
        let mut again = Vec::new();
        for (name, value) in &pairs {
            encode_pair(name, value, &mut again).map_err(|e| e.to_string())?;
        }
        promise(pairs_of(&again) == (pairs.clone(), None), || "written again it is something else".into())?;
        promise(again.len() <= input.len(), || "written again it is longer".into())?;
        if let (true, Some((name, _))) = (planted("signed-length"), pairs.first()) {
            promise(naive(input) == name.len(), || "planted".into())?;
        }
    }
    let stream = input.to_vec();
    let (parsed, held) = alloc::peak_of(|| Params::parse(stream, LIMITS));
    // 12 bytes a pair, doubled by the vector's growth, and its start of 32.
    promise(held <= 3 * 12 * LIMITS.params_count + 1024, || format!("{held} bytes held for the index"))?;
    match parsed {
        Ok(parsed) => {
            promise(error.is_none() && input.len() <= LIMITS.params_bytes, || {
                "Params takes what Pairs refuses".into()
            })?;
            promise(
                parsed.len() == pairs.len() && parsed.iter().eq(pairs.iter().map(|(n, v)| (&n[..], &v[..]))),
                || "Params and Pairs differ".into(),
            )?;
            for (name, _) in &pairs {
                let last = pairs.iter().rev().find(|(other, _)| other == name).map(|(_, value)| &value[..]);
                promise(parsed.get(name) == last, || "a lookup does not give the last".into())?;
            }
            if let Some((name, _)) = pairs.first() {
                let mut fewer = parsed.clone();
                fewer.remove(name);
                promise(fewer.get(name).is_none() && fewer.len() < parsed.len(), || "removed, and still there".into())?;
            }
        }
        Err(_) => {
            promise(error.is_some() || input.len() > LIMITS.params_bytes, || "Params refuses what Pairs takes".into())?
        }
    }
    let rule = error.map_or(0, |e| rng::hash(e.rule.name().as_bytes()));
    let shape = pairs.iter().take(6).fold(0u64, |all, (n, v)| {
        all * 16
            + u64::from(n.is_empty())
            + 2 * u64::from(v.is_empty())
            + 4 * u64::from(n.len() > 127)
            + 8 * u64::from(v.len() > 127)
    });
    Ok(rule ^ shape)
}
