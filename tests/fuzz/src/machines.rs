//! The two connection machines, driven as a driver does.

use crate::codec::LIMITS;
use crate::plant::planted;
use crate::{alloc, pieces, promise, rng, Outcome};
use fcgi_core::conn::requester::{AnswerEvent, RequesterConn};
use fcgi_core::conn::responder::{Capabilities, RequestEvent, ResponderConn};
use fcgi_core::decode::Decoder;
use fcgi_core::params::{Pairs, Params};
use fcgi_core::record::{ProtocolError, ProtocolStatus, Role};
use std::collections::HashMap;

/// What happened, pieces of one stream joined: (word, id, bytes).
#[derive(Default, PartialEq, Eq, Debug)]
struct Log(Vec<(&'static str, u16, Vec<u8>)>);

impl Log {
    fn put(&mut self, word: &'static str, id: u16, bytes: &[u8]) {
        match self.0.last_mut() {
            Some((last, of, all))
                if (*last, *of) == (word, id) && matches!(word, "stdin" | "data" | "stdout" | "stderr") =>
            {
                all.extend_from_slice(bytes)
            }
            _ => self.0.push((word, id, bytes.to_vec())),
        }
    }

    fn signature(&self, error: Option<&ProtocolError>) -> u64 {
        let mut signature = error.map_or(0, |e| rng::hash(e.rule.name().as_bytes()));
        for (word, ..) in self.0.iter().take(12) {
            signature = signature.wrapping_mul(31) ^ rng::hash(word.as_bytes());
        }
        signature
    }
}

struct Served {
    log: Log,
    output: Vec<u8>,
    error: Option<ProtocolError>,
    eof: Result<(), ProtocolError>,
}

fn serve(cut: &[&[u8]], multiplexes: bool) -> Result<Served, String> {
    let capabilities = Capabilities { max_conns: 1, max_reqs: 4, multiplexes };
    let mut conn = ResponderConn::new(LIMITS, capabilities);
    let (mut log, mut output, mut error) = (Log::default(), Vec::new(), None);
    let mut params = Params::default();
    let mut roles = HashMap::new();
    'pieces: for piece in cut {
        let mut rest: &[u8] = piece;
        loop {
            let event = match conn.receive(&mut rest) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(found) => {
                    error = Some(found);
                    break 'pieces;
                }
            };
            let mut over = None;
            match event {
                RequestEvent::Begin { id, role, .. } => {
                    log.put("begin", id, role.name().as_bytes());
                    roles.insert(id, role);
                }
                RequestEvent::Params { id } => {
                    let stream = conn.params(id).ok_or("no params after Params")?.to_vec();
                    promise(stream.len() <= LIMITS.params_bytes, || format!("{} bytes of params", stream.len()))?;
                    promise(Pairs::with_limits(&stream, LIMITS).all(|pair| pair.is_ok()), || "broken params".into())?;
                    promise(conn.take_params(id, &mut params).map_err(|e| e.to_string())?, || {
                        "no params to take".into()
                    })?;
                    promise(params.raw() == stream, || "other params taken".into())?;
                    log.put("params", id, &stream);
                    over = (roles.get(&id) == Some(&Role::Authorizer)).then_some(id);
                }
                RequestEvent::Stdin { id, bytes } => {
                    promise(!bytes.is_empty(), || "an empty piece of STDIN".into())?;
                    log.put("stdin", id, bytes);
                }
                RequestEvent::Data { id, bytes } => {
                    promise(!bytes.is_empty() && roles.get(&id) == Some(&Role::Filter), || {
                        "DATA for no filter".into()
                    })?;
                    log.put("data", id, bytes);
                }
                RequestEvent::StdinEnd { id } => {
                    log.put("stdin-end", id, b"");
                    over = (roles.get(&id) == Some(&Role::Responder)).then_some(id);
                }
                RequestEvent::DataEnd { id } => {
                    log.put("data-end", id, b"");
                    over = Some(id);
                }
                RequestEvent::Abort { id } => {
                    log.put("abort", id, b"");
                    over = Some(id);
                }
                RequestEvent::Managed => log.put("managed", 0, b""),
            }
            output.append(conn.output());
            promise(conn.active() <= LIMITS.active_requests, || format!("{} requests open", conn.active()))?;
            if let Some(id) = over {
                if id % 2 == 0 {
                    conn.stderr(id, b"err", &mut output);
                }
                conn.stdout(id, b"ok", &mut output);
                conn.end(id, u32::from(id), ProtocolStatus::RequestComplete, &mut output);
            }
        }
        promise(rest.is_empty(), || "the machine asks for more and leaves bytes".into())?;
    }
    output.append(conn.output());
    Ok(Served { log, output, error, eof: conn.eof() })
}

/// What a driver without a log holds: the machine's own memory.
fn held(cut: &[&[u8]]) -> usize {
    let mut conn = ResponderConn::new(LIMITS, Capabilities { max_conns: 1, max_reqs: 4, multiplexes: true });
    let mut trusting: Vec<Vec<u8>> = Vec::new();
    let mut side = Decoder::new();
    alloc::peak_of(|| {
        for piece in cut {
            let (mut rest, mut again): (&[u8], &[u8]) = (piece, piece);
            while planted("trusting") {
                match side.next(&mut again) {
                    Ok(Some(chunk)) if chunk.first => {
                        trusting.push(Vec::with_capacity(chunk.header.content_len.into()))
                    }
                    Ok(Some(_)) => {}
                    _ => break,
                }
            }
            loop {
                match conn.receive(&mut rest) {
                    Ok(Some(_)) => conn.output().clear(),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    })
    .1
}

/// Our answers, read as a web server reads them: whole records, one END for each request, nothing after it.
fn check_output(served: &Served) -> Result<(), String> {
    let (mut rest, mut decoder) = (served.output.as_slice(), Decoder::new());
    let mut ends: HashMap<u16, usize> = HashMap::new();
    while let Some(chunk) = decoder.next(&mut rest).map_err(|e| e.to_string())? {
        let (kind, id) = (chunk.header.kind, chunk.header.id);
        promise(matches!((kind, id), (3 | 6 | 7, 1..) | (10 | 11, 0)), || format!("we sent type {kind} with id {id}"))?;
        if kind == 3 {
            *ends.entry(id).or_default() += 1;
        }
    }
    promise(decoder.at_boundary(), || "we sent part of a record".into())?;
    for (id, count) in ends {
        let begun = served.log.0.iter().filter(|(word, of, _)| (*word, *of) == ("begin", id)).count();
        let managed = served.log.0.iter().filter(|(word, ..)| *word == "managed").count();
        promise(count <= begun + managed, || format!("{count} ENDs for {begun} requests of id {id}"))?;
    }
    Ok(())
}

pub fn responder(input: &[u8]) -> Outcome {
    let mut signature = 0;
    for multiplexes in [false, true] {
        let whole = serve(&[input], multiplexes)?;
        let cut = serve(&pieces(input, 2), multiplexes)?;
        promise(whole.log == cut.log, || format!("events whole:\n{:?}\ncut:\n{:?}", whole.log, cut.log))?;
        promise(whole.error == cut.error, || format!("whole {:?}, cut {:?}", whole.error, cut.error))?;
        promise(whole.output == cut.output, || "another answer when cut".into())?;
        promise(whole.error.is_some() || whole.eof == cut.eof, || format!("whole {:?}, cut {:?}", whole.eof, cut.eof))?;
        check_output(&whole)?;
        signature = whole.log.signature(whole.error.as_ref()) ^ u64::from(multiplexes);
    }
    for cut in [vec![input], pieces(input, 3)] {
        let held = held(&cut);
        // Params of every open request, doubled by the vectors' growth, a management record, and small change.
        let most = LIMITS.active_requests * 2 * LIMITS.params_bytes + 2 * LIMITS.values_bytes + 4096;
        promise(held <= most, || format!("{held} bytes held, {most} promised"))?;
    }
    Ok(signature)
}

fn read(cut: &[&[u8]]) -> Result<(Log, Option<ProtocolError>, bool, usize), String> {
    let mut conn = RequesterConn::new(LIMITS);
    (1..=3).for_each(|id| conn.assume(id));
    let (mut log, mut error) = (Log::default(), None);
    let mut side = Decoder::new();
    'pieces: for piece in cut {
        let (mut rest, mut again): (&[u8], &[u8]) = (piece, piece);
        while planted("eager-end") {
            match side.next(&mut again) {
                Ok(Some(chunk)) if chunk.header.kind == 3 && !chunk.last && !chunk.bytes.is_empty() => {
                    log.put("end", chunk.header.id, b"early")
                }
                Ok(Some(_)) => {}
                _ => break,
            }
        }
        loop {
            match conn.receive(&mut rest) {
                Ok(Some(AnswerEvent::Stdout { id, bytes })) => log.put("stdout", id, bytes),
                Ok(Some(AnswerEvent::StdoutEnd { id })) => log.put("stdout-end", id, b""),
                Ok(Some(AnswerEvent::Stderr { id, bytes })) => log.put("stderr", id, bytes),
                Ok(Some(AnswerEvent::StderrEnd { id })) => log.put("stderr-end", id, b""),
                Ok(Some(AnswerEvent::End { id, app_status, protocol_status })) => {
                    log.put("end", id, &[&app_status.to_be_bytes()[..], &[protocol_status]].concat())
                }
                Ok(Some(AnswerEvent::Values(values))) => {
                    promise(values.len() <= LIMITS.params_count, || format!("{} values", values.len()))?;
                    values.iter().for_each(|(name, value)| log.put("value", 0, &[&name[..], b"=", value].concat()));
                    log.put("values", 0, b"");
                }
                Ok(Some(AnswerEvent::UnknownType(kind))) => log.put("unknown-type", 0, &[kind]),
                Ok(None) => break,
                Err(found) => {
                    error = Some(found);
                    break 'pieces;
                }
            }
        }
        promise(rest.is_empty(), || "the machine asks for more and leaves bytes".into())?;
    }
    Ok((log, error, conn.is_at_boundary(), conn.active()))
}

pub fn requester(input: &[u8]) -> Outcome {
    let whole = read(&[input])?;
    let cut = read(&pieces(input, 4))?;
    promise(whole.0 == cut.0, || format!("events whole:\n{:?}\ncut:\n{:?}", whole.0, cut.0))?;
    promise(whole.1 == cut.1, || format!("whole {:?}, cut {:?}", whole.1, cut.1))?;
    promise(whole.1.is_some() || (whole.2, whole.3) == (cut.2, cut.3), || "another state when cut".into())?;
    let mut conn = RequesterConn::new(LIMITS);
    let cut = pieces(input, 5);
    let (_, held) = alloc::peak_of(|| {
        for piece in cut {
            let mut rest = piece;
            loop {
                match conn.receive(&mut rest) {
                    Ok(Some(event)) => drop(event),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
    });
    // One management record and its pairs, each two vectors.
    let most = 2 * LIMITS.values_bytes + LIMITS.params_count * 2 * (48 + 32) + 4096;
    promise(held <= most, || format!("{held} bytes held, {most} promised"))?;
    Ok(whole.0.signature(whole.1.as_ref()))
}
