//! The one error table: every front end takes its numbers, names and texts from here.
//!
//! A number is never reused. Groups of a hundred: 1 arguments and options, 2 addresses and sockets, 3 the wire,
//! 4 the operating system, 5 the probe's verdicts and the same of the client, 6 the manager, 7 the worker and request, 9 ourselves.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $text:literal, $advice:literal;)+) => {
        /// What went wrong, as a stable number. Each front end shows the same number and name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(i32)]
        #[non_exhaustive]
        pub enum Code { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name,)+];

            /// The code's name, in lower case with underscores, as the C header and the bindings spell it.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)+ }
            }

            /// What the reader can do about it, one sentence.
            pub const fn advice(self) -> &'static str {
                match self { $(Code::$name => $advice,)+ }
            }

            /// What the code stands for, one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc),+),)+ }
            }

            /// The code with this number, if there is one.
            pub const fn from_number(number: i32) -> Option<Code> {
                match number { $($number => Some(Code::$name),)+ _ => None }
            }
        }
    };
}

codes! {
    /// A pointer or handle that must not be null was null.
    NullArgument = -101, "null_argument", "Pass a valid pointer; see the function's comment in fcgiguard.h.";
    /// An argument is out of its range.
    InvalidArgument = -102, "invalid_argument", "The message names the argument and its range.";
    /// There is no option of that name.
    UnknownOption = -103, "unknown_option", "Correct its name; those of a pool are listed by `fcgiguard help options`.";
    /// An option's value does not parse or is out of range.
    InvalidOption = -104, "invalid_option", "Correct the option; the message has its name, the value and what is expected.";
    /// Options that exclude or need each other were given.
    ConflictingOptions = -105, "conflicting_options", "The message names the options; change one of them.";
    /// The call is not allowed in the object's present state.
    WrongState = -106, "wrong_state", "The message says which call has to come first.";
    /// The handle was made by another process (a parent before fork).
    WrongProcess = -107, "wrong_process", "Make a new handle after fork; in the child, only free inherited ones.";
    /// The handle was poisoned by an earlier internal error.
    Poisoned = -108, "poisoned", "Free the handle and make a new one; report the first error.";
    /// A configuration file does not parse or has faults.
    InvalidConfig = -109, "invalid_config", "The message has each fault with its line.";

    /// An address does not parse.
    InvalidAddress = -201, "invalid_address", "Write unix:/path, /path, host:port, :port, [v6]:port, fd:N or systemd:NAME.";
    /// A host name does not resolve.
    UnresolvedHost = -202, "unresolved_host", "Check the name, or give the number.";
    /// A live server already listens there.
    AddressInUse = -203, "address_in_use", "Stop the server that holds the address, or choose another one.";
    /// The folder of a unix socket is missing or may not be written.
    SocketFolder = -204, "socket_folder", "Create the folder, or give the user that starts the server the right to write there.";
    /// The address cannot be bound.
    BindFailed = -205, "bind_failed", "Choose another address, or do what the message says.";
    /// An inherited descriptor is missing or is not a listening socket.
    InvalidDescriptor = -206, "invalid_descriptor", "Give an address to listen on, or check how the supervisor passes the socket (fd:N, systemd:NAME).";

    /// A record's version byte is not 1.
    BadVersion = -301, "bad_version", "The peer does not speak FastCGI, or the stream is out of step.";
    /// A record's type is not allowed here.
    BadType = -302, "bad_type", "The peer sent a record that its side may not send.";
    /// A record of fixed form has another length.
    BadLength = -303, "bad_length", "The peer's record is malformed.";
    /// A request id is 0 where a request is meant, or not 0 where management is.
    BadRequestId = -304, "bad_request_id", "The peer uses request ids wrongly.";
    /// A request id was begun twice.
    DuplicateRequest = -305, "duplicate_request", "The peer reused an id before its END_REQUEST.";
    /// A name-value pair is cut off or longer than its stream.
    BadPair = -306, "bad_pair", "The peer's params are malformed.";
    /// A record came in the wrong order within its request.
    OutOfOrder = -307, "out_of_order", "The peer sent the streams of a request in the wrong order.";
    /// The connection ended inside a record or request.
    Truncated = -308, "truncated", "The peer stopped in the middle; look at its log.";
    /// A limit on params, records or requests was exceeded.
    LimitExceeded = -309, "limit_exceeded", "Raise the limit named in the message if the peer is trusted.";
    /// A value does not fit the wire format (ours to avoid).
    TooLong = -310, "too_long", "Shorten the value named in the message.";
    /// The peer ended the request with a protocol status other than complete.
    RequestRefused = -311, "request_refused", "The message names the status: multiplexing, overload or role.";

    /// A system call failed.
    System = -401, "system", "The message names the call and the system's reason.";
    /// Memory could not be had.
    OutOfMemory = -402, "out_of_memory", "Free memory or lower the limits.";
    /// A deadline passed.
    Timeout = -403, "timeout", "Raise the deadline, or find out why the peer is slow.";
    /// A signal ended the wait, and nothing was lost.
    Interrupted = -404, "interrupted", "Do what the signal asks for; then make the same call again, or leave.";
    /// A command cannot be found or executed.
    CommandNotFound = -405, "command_not_found", "Check the path, the execute permission and the interpreter line.";
    /// The process lacks a right it needs.
    PermissionDenied = -406, "permission_denied", "Run as a user with the right, or change owner or mode.";
    /// The operation needs something this system lacks.
    Unsupported = -407, "unsupported", "The message says what is missing and what is done without it.";

    /// Alive, but every worker was occupied for the whole probe.
    ProbeBusy = -501, "busy", "Look at the queue; add workers if it does not shrink.";
    /// Nothing accepts connections at the address.
    ProbeRefused = -502, "refused", "Start the server.";
    /// The unix socket does not exist.
    ProbeNoSocket = -503, "no_socket", "Start the server, or correct the path.";
    /// The prober may not connect.
    ProbeDenied = -504, "denied", "Run this as a user who may write to the socket, or set its owner, group or mode (socket_owner, listen.owner).";
    /// The listen queue is full.
    ProbeBacklogFull = -505, "backlog_full", "The server does not accept fast enough: look at its workers.";
    /// The connection did not open in time.
    ProbeConnectTimeout = -506, "connect_timeout", "Check host, port and firewall.";
    /// The server accepted and never answered.
    ProbeSilent = -507, "silent", "Its workers are stopped or stuck: restart it, and keep their stacks first.";
    /// The server closed without an answer.
    ProbeClosed = -508, "closed", "Look at the server's log: the worker may have died.";
    /// What answers does not speak FastCGI.
    ProbeNotFastcgi = -509, "not_fastcgi", "Check the port; the message names the protocol where it can be told.";
    /// The answer broke off.
    ProbeTruncated = -510, "truncated_answer", "Look at the server's log: the worker may have died while answering.";
    /// The answer breaks the FastCGI specification.
    ProbeProtocolError = -511, "protocol_error", "The message has the rule and the offset.";
    /// The server said it is overloaded.
    ProbeOverloaded = -512, "overloaded", "Add workers or lower the load.";
    /// The application ended with a status other than 0.
    ProbeAppError = -513, "app_error", "Look at the application's log.";
    /// Status, header or body differ from what was asked for.
    ProbeUnexpected = -514, "unexpected", "The message shows what came and what was expected.";

    /// The pool cannot start its workers.
    StartFailed = -601, "start_failed", "The message has the worker's exit status and last output.";
    /// A reload was given up and the old generation serves on.
    ReloadFailed = -602, "reload_failed", "Correct the cause named in the message and reload again.";
    /// An upgrade was given up and the old manager serves on.
    UpgradeFailed = -603, "upgrade_failed", "Correct the cause named in the message and upgrade again.";
    /// Another change is still under way.
    ChangeInProgress = -604, "change_in_progress", "Wait for it to end; `fcgiguard status` shows it.";
    /// The pool gave up after too many failures.
    GaveUp = -605, "gave_up", "The message has the last failure; correct it and start again.";
    /// A worker declared a failure that restarting cannot cure.
    Fatal = -606, "fatal", "The message has the worker's reason.";
    /// There is no control socket there, or it is not ours.
    NoControl = -607, "no_control", "Start the manager with --control, and give the same path here.";
    /// The control socket refused this user.
    ControlDenied = -608, "control_denied", "Run as the manager's user, or name this user in control_users.";

    /// There is no request open.
    NoRequest = -701, "no_request", "Accept a request first.";
    /// The web server aborted the request or closed its connection.
    Aborted = -702, "aborted", "Stop working on this request and finish it.";
    /// The worker is asked to leave: no further request will come.
    Leaving = -703, "leaving", "Clean up and exit with 0.";
    /// The stream is closed.
    StreamClosed = -704, "stream_closed", "Write before the request is finished.";

    /// A fault of fcgiguard itself.
    Internal = -901, "internal", "Please report it with the message.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Code {
    /// The stable number; always negative.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// Implemented by every error of the crate: its place in the one table.
pub trait Coded: std::error::Error {
    /// The code of this error.
    fn code(&self) -> Code;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let mut numbers = HashSet::new();
        let mut names = HashSet::new();
        for &code in Code::ALL {
            assert!(numbers.insert(code.number()), "{code} is used twice");
            assert!(names.insert(code.name()), "{code} is named twice");
            assert_eq!(Code::from_number(code.number()), Some(code));
            assert!(code.number() < 0 && !code.advice().is_empty());
        }
    }
}
