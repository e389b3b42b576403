//! The transition table of a request on the application's side, as data.
//!
//! A request's streams come in their order: PARAMS, then STDIN (a responder or filter), then DATA (a filter). Each ends
//! with an empty record. ABORT may come at any time. What a row does not allow is a fault of the peer, except what the
//! specification lets us pass over: unknown types, and every record of an id that is not active.

use crate::record::{RecordType, Role};

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Stage {
    /// PARAMS are coming.
    Params,
    /// STDIN is coming.
    Stdin,
    /// DATA is coming.
    Data,
    /// The peer has said all it has to say.
    Complete,
}

/// What a record does to its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Effect {
    /// Content is added to the stream of this stage; an empty record ends it.
    Stream,
    /// The request is to be given up.
    Abort,
    /// Passed over.
    Ignore,
    /// The peer broke the order of the streams.
    Fault,
    /// Records of this type are never sent by a web server.
    WrongSide,
    /// Begun twice.
    Again,
}

/// What a record of a known type does to an active request.
pub fn effect(stage: Stage, role: Role, kind: RecordType) -> Effect {
    use RecordType::*;
    match (kind, stage) {
        (Params, Stage::Params) | (Stdin, Stage::Stdin) | (Data, Stage::Data) => Effect::Stream,
        (AbortRequest, _) => Effect::Abort,
        (BeginRequest, _) => Effect::Again,
        (EndRequest | Stdout | Stderr | GetValuesResult | UnknownType, _) => Effect::WrongSide,
        // An authorizer gets no body, but web servers in use send the empty STDIN all the same.
        (Stdin, Stage::Complete) if role == Role::Authorizer => Effect::Ignore,
        // The empty STDIN after CONTENT_LENGTH was met: we have ended the stream already.
        (Stdin, Stage::Complete | Stage::Data) => Effect::Ignore,
        (Data, Stage::Complete) => Effect::Ignore,
        (Params | Stdin | Data, _) => Effect::Fault,
        // A management type with a request's id.
        (GetValues, _) => Effect::Ignore,
    }
}

/// The stage that follows when the present stream has ended.
pub fn after(stage: Stage, role: Role) -> Stage {
    match (stage, role) {
        (Stage::Params, Role::Authorizer) => Stage::Complete,
        (Stage::Params, _) => Stage::Stdin,
        (Stage::Stdin, Role::Filter) => Stage::Data,
        _ => Stage::Complete,
    }
}
