//! The encoder: appends records to a buffer. Its rules were learnt from real peers:
//!
//! - params are cut between pairs where they can be, and content plus padding stays under 65536: PHP resets otherwise;
//! - stream records are padded to eight bytes, as the specification recommends and libfcgi expects of nothing;
//! - the empty GET_VALUES carries eight bytes of padding: libfcgi and FCGI.pm never answer one without.

use crate::params::{encode_pair, pair_size};
use crate::record::{Header, ProtocolError, ProtocolStatus, RecordType, Role, Rule, KEEP_CONN, MAX_PADDED_CONTENT};

/// The header of a stream record of `len` bytes (at most [`MAX_PADDED_CONTENT`]), padded to eight; its padding's length
/// is in byte 6. For callers that send the body themselves, without copying it.
pub fn stream_header(kind: RecordType, id: u16, len: u16) -> [u8; 8] {
    let padding_len = (8 - (len % 8) as u8) % 8;
    Header { kind: kind as u8, id, content_len: len, padding_len }.encode()
}

fn put(out: &mut Vec<u8>, kind: RecordType, id: u16, content: &[u8]) {
    let header = stream_header(kind, id, content.len() as u16);
    let [.., padding, _] = header;
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.extend_from_slice(&[0u8; 7][..usize::from(padding)]);
}

/// BEGIN_REQUEST.
pub fn begin(id: u16, role: Role, keep_conn: bool, out: &mut Vec<u8>) {
    let [role1, role0] = (role as u16).to_be_bytes();
    let flags = if keep_conn { KEEP_CONN } else { 0 };
    put(out, RecordType::BeginRequest, id, &[role1, role0, flags, 0, 0, 0, 0, 0]);
}

/// ABORT_REQUEST.
pub fn abort(id: u16, out: &mut Vec<u8>) {
    put(out, RecordType::AbortRequest, id, &[]);
}

/// END_REQUEST.
pub fn end_request(id: u16, app_status: u32, status: ProtocolStatus, out: &mut Vec<u8>) {
    let [a, b, c, d] = app_status.to_be_bytes();
    put(out, RecordType::EndRequest, id, &[a, b, c, d, status as u8, 0, 0, 0]);
}

/// Bytes of a stream, cut into records. Nothing for no bytes: an empty record would end the stream.
pub fn stream(kind: RecordType, id: u16, bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 16 * (1 + bytes.len() / MAX_PADDED_CONTENT));
    for piece in bytes.chunks(MAX_PADDED_CONTENT) {
        put(out, kind, id, piece);
    }
}

/// The end of a stream.
pub fn stream_end(kind: RecordType, id: u16, out: &mut Vec<u8>) {
    put(out, kind, id, &[]);
}

/// The whole PARAMS stream, its end included. Cut between pairs; only a pair that is longer than a record straddles.
/// On error nothing is appended.
pub fn params<'p>(
    id: u16,
    pairs: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), ProtocolError> {
    let start = out.len();
    let mut record = Vec::new();
    for (name, value) in pairs {
        if record.len() + pair_size(name, value) > MAX_PADDED_CONTENT && !record.is_empty() {
            stream(RecordType::Params, id, &record, out);
            record.clear();
        }
        if let Err(error) = encode_pair(name, value, &mut record) {
            out.truncate(start);
            return Err(error);
        }
    }
    stream(RecordType::Params, id, &record, out);
    stream_end(RecordType::Params, id, out);
    Ok(())
}

/// GET_VALUES for these names; for none, exactly the sixteen bytes that every server in use answers.
pub fn get_values(names: &[&str], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut content = Vec::new();
    for name in names {
        encode_pair(name.as_bytes(), b"", &mut content)?;
    }
    if content.is_empty() {
        let header = Header { kind: RecordType::GetValues as u8, id: 0, content_len: 0, padding_len: 8 };
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&[0; 8]);
        return Ok(());
    }
    management(RecordType::GetValues, &content, out)
}

/// GET_VALUES_RESULT with these pairs, in one record.
pub fn get_values_result(pairs: &[(&[u8], &[u8])], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let mut content = Vec::new();
    for (name, value) in pairs {
        encode_pair(name, value, &mut content)?;
    }
    management(RecordType::GetValuesResult, &content, out)
}

/// UNKNOWN_TYPE: the answer to a management record whose type we do not know.
pub fn unknown_type(kind: u8, out: &mut Vec<u8>) {
    put(out, RecordType::UnknownType, 0, &[kind, 0, 0, 0, 0, 0, 0, 0]);
}

fn management(kind: RecordType, content: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    if content.len() > MAX_PADDED_CONTENT {
        return Err(ProtocolError::us(Rule::Fits, content.len()));
    }
    put(out, kind, 0, content);
    Ok(())
}
