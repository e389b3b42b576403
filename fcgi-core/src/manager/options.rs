//! The one option table. Flags, TOML keys, environment names, C setters, binding keywords and docs/options.md are made
//! from it; nothing else knows an option's name, type, default or text.
// Texts of the table become documentation; [v6] in them is an address.
#![allow(rustdoc::broken_intra_doc_links)]

use crate::error::{Code, Coded};
use crate::sys::process;
use crate::sys::users::{self, Right};
use crate::units::{format_duration_ms, format_size, parse_duration_ms, parse_size};
use std::fmt;

/// A wrong option: which, what was given, and why it is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OptionFault {
    /// The option's name as it was given.
    pub option: String,
    /// The value that was given; empty where the fault is not in one value.
    pub value: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// Its place in the error table.
    pub code: Code,
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            write!(f, "{}: {}", self.option, self.reason)
        } else {
            write!(f, "{}: {:?}: {}", self.option, self.value, self.reason)
        }
    }
}

impl std::error::Error for OptionFault {}

impl Coded for OptionFault {
    fn code(&self) -> Code {
        self.code
    }
}

/// How a value is written.
trait Value: Sized {
    const KIND: &'static str;
    /// A list takes several; setting it again adds.
    const LIST: bool = false;
    fn parse(text: &str) -> Result<Self, String>;
    fn show(&self) -> String;
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = Self::parse(text)?;
        Ok(())
    }
}

/// Milliseconds.
pub type Ms = u64;

/// A size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bytes(pub u64);

/// A duration in milliseconds, as the table has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Duration(pub Ms);

/// File permission bits, written in octal; none where the system's default is to stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Octal(pub Option<u32>);

impl Value for Duration {
    const KIND: &'static str = "duration";
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration_ms(text).map(Duration).map_err(|e| e.to_string())
    }
    fn show(&self) -> String {
        format_duration_ms(self.0)
    }
}

impl Value for Bytes {
    const KIND: &'static str = "size";
    fn parse(text: &str) -> Result<Self, String> {
        parse_size(text).map(Bytes).map_err(|e| e.to_string())
    }
    fn show(&self) -> String {
        format_size(self.0)
    }
}

impl Value for u32 {
    const KIND: &'static str = "count";
    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u64 {
    const KIND: &'static str = "count";
    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for i32 {
    const KIND: &'static str = "number";
    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "expected a whole number".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const KIND: &'static str = "factor";
    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().ok().filter(|f: &f64| f.is_finite()).ok_or_else(|| "expected a number like 1.5".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const KIND: &'static str = "yes or no";
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "1" | "yes" | "true" | "on" | "" => Ok(true),
            "0" | "no" | "false" | "off" => Ok(false),
            _ => Err("expected yes or no".to_owned()),
        }
    }
    fn show(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Value for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("contains a NUL byte".to_owned());
        }
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Vec<String> {
    const KIND: &'static str = "list";
    const LIST: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
    fn show(&self) -> String {
        self.join(",")
    }
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.extend(Self::parse(text)?);
        Ok(())
    }
}

/// Texts of which each is one entry, whatever it contains; in one text they are lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries(pub Vec<String>);

impl Value for Entries {
    const KIND: &'static str = "entry";
    const LIST: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Entries(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()))
    }
    fn show(&self) -> String {
        self.0.join("\n")
    }
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0.extend(Self::parse(text)?.0);
        Ok(())
    }
}

impl Value for Vec<i32> {
    const KIND: &'static str = "list of numbers";
    const LIST: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(|_| format!("{part:?} is not a number"))).collect()
    }
    fn show(&self) -> String {
        self.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
    }
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.extend(Self::parse(text)?);
        Ok(())
    }
}

impl Value for Octal {
    const KIND: &'static str = "octal";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Octal(None));
        }
        let bits = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|bits| *bits <= 0o7777);
        bits.map(|bits| Octal(Some(bits))).ok_or_else(|| "expected permission bits in octal, like 0660".to_owned())
    }
    fn show(&self) -> String {
        self.0.map_or(String::new(), |bits| format!("{bits:04o}"))
    }
}

macro_rules! choice {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $vdoc:literal])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant),+ }
        impl Value for $name {
            const KIND: &'static str = concat!($($text, " "),+);
            fn parse(text: &str) -> Result<Self, String> {
                match text { $($text => Ok($name::$variant),)+
                    _ => Err(format!("expected one of: {}", Self::KIND.trim())) }
            }
            fn show(&self) -> String { match self { $($name::$variant => $text),+ }.to_owned() }
        }
    };
}

choice! {
    /// How many workers there are.
    Sizing {
        /// Always `workers`.
        Static = "static",
        /// Between `min_workers` and `max_workers`, by idle workers and listen queue.
        Dynamic = "dynamic",
        /// None until somebody waits, up to `max_workers`.
        Ondemand = "ondemand",
    }
}
choice! {
    /// How a worker becomes ready.
    Ready {
        /// By saying so; a command that cannot is ready once it has lived for `alive_after`.
        Auto = "auto",
        /// Only by saying so.
        Said = "said",
        /// By living for `alive_after`.
        Alive = "alive",
    }
}
choice! {
    /// How a foreign command is made to cooperate.
    Cooperate {
        /// libfcgiguard_worker.so is preloaded into it.
        Preload = "preload",
        /// It is only observed.
        Observe = "observe",
        /// As observe, and TERM is all it gets.
        None = "none",
    }
}
choice! {
    /// What is done when workers die again and again.
    OnTrouble {
        /// Try again, ever more slowly.
        Retry = "retry",
        /// Replace all workers, then leave the pool in peace for the grace time.
        Restart = "restart",
        /// Start nobody until a reload or a scale.
        Hold = "hold",
        /// End the manager.
        Exit = "exit",
    }
}
choice! {
    /// What is done with what workers write to descriptors 1 and 2.
    Output {
        /// It goes where the manager's own goes.
        Inherit = "inherit",
        /// It is taken line by line into the manager's log, with pid and generation.
        Capture = "capture",
    }
}
choice! {
    /// What counts as a worker's memory.
    MemoryKind {
        /// Proportional share: pages shared with others count in parts.
        Pss = "pss",
        /// Resident set: shared pages count whole.
        Rss = "rss",
    }
}
choice! {
    /// How the log is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
        /// With the priorities that the journal reads.
        Journal = "journal",
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Name, with underscores; dashes are taken as well.
    pub name: &'static str,
    /// How a value is written: a kind, or its choices.
    pub kind: &'static str,
    /// Default, as a person would write it.
    pub default: &'static str,
    /// What it does, in a sentence or two.
    pub text: &'static str,
    /// Whether it may be given several times.
    pub list: bool,
    /// Whether it is for a pool of a command only: it prepares the command's process. A program that forks itself does such things in
    /// its own code, before it serves.
    pub exec_only: bool,
}

impl OptionSpec {
    /// Whether a flag of this name alone means yes.
    pub fn is_switch(&self) -> bool {
        self.kind == <bool as Value>::KIND
    }

    /// What may be given, for usage texts: the choices with `|` between, or the kind.
    pub fn values(&self) -> String {
        match self.kind.trim() {
            _ if self.is_switch() => "yes|no".to_owned(),
            kind if kind.contains(" of ") => kind.to_owned(),
            choices => choices.split_ascii_whitespace().collect::<Vec<_>>().join("|"),
        }
    }
}

macro_rules! options {
    (@exec_only) => { false };
    (@exec_only exec_only) => { true };
    ($($name:ident : $type:ty = $default:literal, $text:literal $(, $mark:ident)?;)+) => {
        /// The table.
        pub static OPTIONS: &[OptionSpec] = &[$(OptionSpec {
            name: stringify!($name),
            kind: <$type as Value>::KIND,
            default: $default,
            text: $text,
            list: <$type as Value>::LIST,
            exec_only: options!(@exec_only $($mark)?),
        },)+];

        /// The options of one pool, typed.
        #[derive(Clone, Debug)]
        pub struct PoolOptions { $(#[doc = $text] pub $name: $type,)+ }

        impl PoolOptions {
            fn set_known(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
                match name { $(stringify!($name) => Some(Value::set(&mut self.$name, value)),)+ _ => None }
            }

            /// The value of an option as a person would write it; None if there is no such option.
            pub fn get(&self, name: &str) -> Option<String> {
                match name.replace('-', "_").as_str() { $(stringify!($name) => Some(self.$name.show()),)+ _ => None }
            }

            fn defaults() -> Result<PoolOptions, String> {
                Ok(PoolOptions { $($name: <$type as Value>::parse($default)?,)+ })
            }
        }
    };
}

options! {
    name: String = "pool", "Name of the pool in log and status.";
    listen: Vec<String> = "", "Addresses to listen on: unix:/path, /path, host:port, :port, [v6]:port, fd:N, systemd:NAME. Without any, descriptor 0 if it is a listening socket.";
    backlog: u32 = "511", "Length of the listen queue that is asked for; the kernel cuts it to net.core.somaxconn.";
    socket_mode: Octal = "", "Permission bits of unix sockets, in octal.";
    socket_owner: String = "", "User that unix sockets belong to.";
    socket_group: String = "", "Group that unix sockets belong to.";

    workers: u32 = "4", "Workers of a static pool, and the first number of a dynamic one.";
    sizing: Sizing = "static", "How the number of workers is found.";
    min_workers: u32 = "1", "Fewest workers of a dynamic pool.";
    max_workers: u32 = "0", "Most workers of a dynamic or ondemand pool; 0 means `workers`.";
    min_spare: u32 = "1", "A dynamic pool grows while fewer workers than this are idle, or somebody waits in the queue.";
    max_spare: u32 = "3", "A dynamic pool shrinks while more workers than this are idle.";
    idle_timeout: Duration = "10s", "An idle worker above what is needed leaves after so long.";

    ready: Ready = "auto", "How a worker becomes ready.";
    alive_after: Duration = "1s", "A worker that can say nothing counts as ready when it has lived so long.";
    start_timeout: Duration = "60s", "A worker that is not ready after so long is a failed start.";
    cooperate: Cooperate = "preload", "How a foreign command is made to cooperate.", exec_only;

    max_requests: u64 = "0", "A worker is replaced after so many requests; 0 is never.";
    max_lifetime: Duration = "0", "A worker is replaced after so long; 0 is never.";
    max_memory: Bytes = "0", "A worker is replaced when it uses so much memory in `memory_samples` samples in a row; 0 is never.";
    memory_kind: MemoryKind = "pss", "What counts as memory: the proportional share (shared pages divided), or the resident set.";
    memory_samples: u32 = "3", "Samples in a row that count as too much memory.";
    sample_interval: Duration = "1s", "How often scoreboard, queue and memory are looked at.";
    jitter: u32 = "10", "Spread of max_requests and max_lifetime in percent, so that workers are not all replaced at once.";

    request_timeout: Duration = "0", "A request that takes longer gets its worker `request_signal`; 0 is never. The worker may extend it.";
    request_signal: String = "TERM", "Signal to the worker of a request that takes too long; one that writes a stack is best.";
    request_kill_after: Duration = "2s", "KILL follows so long after it.";
    request_timeout_only_queued: bool = "no", "Only when somebody waits in the listen queue.";

    stop_timeout: Duration = "30s", "A worker that is asked to leave and has not after so long is KILLed.";
    stop_signal: String = "TERM", "Signal that asks a worker to leave that does not cooperate.";
    drain_repeat: Duration = "250ms", "How often a worker is asked again while it has not left.";

    max_surge: u32 = "1", "How many workers above the pool's size a reload may start at a time. The first new worker is always one above.";
    max_unavailable: u32 = "0", "How many workers fewer than the pool's size may serve while workers are replaced (in a reload once the first new one has proved itself): for machines without room for more.";
    canary_time: Duration = "0", "How long the first new worker of a reload must live after it is ready before the others follow.";
    reload_timeout: Duration = "0", "A reload that has not ended after so long is given up; 0 is never.";

    upgrade_timeout: Duration = "60s", "The dry run of a new image of the manager must end within so long.";

    restart_delay: Duration = "100ms", "First delay when a worker dies before it is ready.";
    restart_factor: f64 = "1.5", "Each further such death multiplies the delay by this.";
    restart_delay_max: Duration = "30s", "The delay does not grow beyond.";
    give_up_after: u32 = "0", "Failed starts in a row after which `on_crash` is done; 0 is never.";
    on_crash: OnTrouble = "retry", "What is done after `give_up_after` failed starts in a row.";
    give_up_code: i32 = "1", "Exit code of the manager when it gives up.";
    fatal_codes: Vec<i32> = "", "Exit codes of a worker that end the pool at once, with that code. Of a new worker of a reload they fail the reload.";
    max_failures: u32 = "0", "So many failures of workers within `failure_window` are too many; 0 is never.";
    failure_window: Duration = "90s", "See `max_failures`.";
    failure_action: OnTrouble = "restart", "What is done when there are too many.";
    failure_grace: Duration = "30s", "No failure is counted for so long after it.";

    self_probe: Duration = "0", "How often the manager probes its own socket; 0 is never.";
    self_probe_timeout: Duration = "5s", "No answer in so long is silence, unless every worker is busy.";

    control: String = "", "Address of the control socket (unix:/path).";
    control_mode: Octal = "0600", "Permission bits of the control socket.";
    control_users: Vec<String> = "", "Users besides root and the manager's own that may command.";
    control_readers: Vec<String> = "", "Users that may read the status.";

    pidfile: String = "", "File that gets the manager's process id; removed at the end. A start that cannot write it is refused.";
    user: String = "", "User that workers run as.", exec_only;
    group: String = "", "Group that workers run as; the user's own if not given.", exec_only;
    umask: Octal = "", "File mode mask of workers, in octal.", exec_only;
    chroot: String = "", "Root folder of workers.", exec_only;
    chdir: String = "", "Working folder of workers.", exec_only;
    env: Entries = "", "NAME=VALUE for workers; may be given several times.", exec_only;
    clear_env: bool = "no", "Workers get only PATH and what `env` says.", exec_only;
    rlimit_nofile: u64 = "0", "Limit of open descriptors of workers; 0 leaves it alone.", exec_only;
    rlimit_core: Bytes = "0", "Limit of core files of workers; 0 leaves it alone.", exec_only;
    rlimit_as: Bytes = "0", "Limit of address space of workers; 0 leaves it alone.", exec_only;
    nice: i32 = "0", "Niceness added for workers.", exec_only;
    no_new_privs: bool = "no", "Workers and their children can gain no rights (set-uid programs do not work).", exec_only;

    watch: Vec<String> = "", "Files whose change reloads the pool.";
    watch_debounce: Duration = "1s", "A changed file must have been quiet for so long.";
    output: Output = "inherit", "What is done with what workers print.", exec_only;
    log: String = "", "File that the log is appended to, opened again on the signal for `reopen`; empty is standard error.";
    log_format: LogFormat = "text", "How the log is written.";
    signals: Vec<String> = "TERM=drain,INT=drain,QUIT=quit,HUP=reload,USR2=upgrade,USR1=reopen,TTIN=more,TTOU=fewer", "What the manager does on which signal: drain, quit, reload, upgrade, reopen (the log), more, fewer, ignore.";
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        match PoolOptions::defaults() {
            Ok(options) => options,
            // A test walks the table, so this is never reached; aborting beats running with other options than documented.
            Err(_) => std::process::abort(),
        }
    }
}

/// The environment's name of an option: `FCGIGUARD_MAX_REQUESTS`.
pub fn env_name(option: &str) -> String {
    format!("FCGIGUARD_{}", option.to_uppercase().replace('-', "_"))
}

impl PoolOptions {
    /// The signals on which the manager does something.
    pub(super) fn signal_numbers(&self) -> Vec<i32> {
        self.signals.iter().filter_map(|entry| parse_signal_entry(entry)).map(|(number, _)| number).collect()
    }

    /// Sets an option from text. A list option is added to.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), OptionFault> {
        let known = name.replace('-', "_");
        let fault = |reason, code| OptionFault { option: name.to_owned(), value: value.to_owned(), reason, code };
        if known == "signals" {
            // The table is replaced, not added to: a signal left out keeps its system default.
            self.signals.clear();
        }
        match self.set_known(&known, value) {
            Some(Ok(())) => Ok(()),
            // Said once, where the reason begins with it.
            Some(Err(reason)) if reason.starts_with(&format!("{value:?}")) => {
                Err(OptionFault { value: String::new(), ..fault(reason, Code::InvalidOption) })
            }
            Some(Err(reason)) => Err(fault(reason, Code::InvalidOption)),
            None => {
                let near = nearest(&known, OPTIONS.iter().map(|spec| spec.name))
                    .map_or(String::new(), |near| format!("; did you mean {near}?"));
                Err(OptionFault {
                    value: String::new(),
                    ..fault(format!("there is no such option{near}"), Code::UnknownOption)
                })
            }
        }
    }

    /// Everything that is wrong with these options taken together, all at once.
    pub fn validate(&self) -> Vec<OptionFault> {
        let mut faults = Vec::new();
        let mut fault = |option: &str, value: String, reason: &str, code: Code| {
            faults.push(OptionFault { option: option.to_owned(), value, reason: reason.to_owned(), code });
        };
        if self.workers == 0 && self.sizing == Sizing::Static {
            fault("workers", "0".into(), "a static pool needs at least 1 worker", Code::InvalidOption);
        }
        if self.workers > MAX_WORKERS {
            fault("workers", self.workers.to_string(), "at most 10000", Code::InvalidOption);
        }
        if self.max_workers > MAX_WORKERS {
            fault("max_workers", self.max_workers.to_string(), "at most 10000", Code::InvalidOption);
        }
        if self.sizing == Sizing::Dynamic {
            if self.min_workers == 0 {
                fault(
                    "min_workers",
                    "0".into(),
                    "a dynamic pool keeps at least 1 worker; see sizing=ondemand",
                    Code::InvalidOption,
                );
            }
            if self.min_workers > self.most_workers() {
                fault("min_workers", self.min_workers.to_string(), "more than max_workers", Code::ConflictingOptions);
            }
            if self.min_spare > self.max_spare {
                fault("min_spare", self.min_spare.to_string(), "more than max_spare", Code::ConflictingOptions);
            }
        }
        if self.sizing == Sizing::Ondemand && self.most_workers() == 0 {
            fault("max_workers", "0".into(), "an ondemand pool needs max_workers or workers", Code::InvalidOption);
        }
        if self.max_surge == 0 && self.max_unavailable == 0 {
            let reason = "a reload needs room for at least 1 new worker: max_surge or max_unavailable";
            fault("max_surge", "0".into(), reason, Code::ConflictingOptions);
        }
        if self.restart_factor < 1.0 {
            fault("restart_factor", self.restart_factor.to_string(), "at least 1", Code::InvalidOption);
        }
        if self.sample_interval.0 < 10 {
            fault("sample_interval", self.sample_interval.show(), "at least 10ms", Code::InvalidOption);
        }
        if self.drain_repeat.0 < 10 {
            fault("drain_repeat", self.drain_repeat.show(), "at least 10ms", Code::InvalidOption);
        }
        if self.jitter > 90 {
            fault("jitter", self.jitter.to_string(), "at most 90 percent", Code::InvalidOption);
        }
        for (option, text) in [("request_signal", &self.request_signal), ("stop_signal", &self.stop_signal)] {
            if signal_number(text).is_none() {
                fault(option, text.clone(), "not a signal's name", Code::InvalidOption);
            }
        }
        for entry in &self.signals {
            if parse_signal_entry(entry).is_none() {
                fault(
                    "signals",
                    entry.clone(),
                    "expected SIGNAL=drain|quit|reload|upgrade|reopen|more|fewer|ignore",
                    Code::InvalidOption,
                );
            }
        }
        for entry in &self.env.0 {
            if entry.find('=').is_none_or(|at| at == 0) {
                fault("env", entry.clone(), "expected NAME=VALUE", Code::InvalidOption);
            }
        }
        if self.on_crash != OnTrouble::Retry && self.give_up_after == 0 {
            fault(
                "on_crash",
                self.on_crash.show(),
                "needs give_up_after to say after how many",
                Code::ConflictingOptions,
            );
        }
        let control = (!self.control.is_empty()).then_some(("control", &self.control));
        for (option, address) in self.listen.iter().map(|address| ("listen", address)).chain(control) {
            if let Err(error) = crate::address::Address::parse(address) {
                // The address is part of the reason.
                fault(option, String::new(), &error.to_string(), Code::InvalidAddress);
            }
        }
        self.look_around(&mut fault);
        faults
    }

    /// What this machine has to have: users, groups, folders, and the right to become another user.
    fn look_around(&self, fault: &mut impl FnMut(&str, String, &str, Code)) {
        let users = [("user", &self.user), ("socket_owner", &self.socket_owner)];
        let lists = [("control_users", &self.control_users), ("control_readers", &self.control_readers)];
        let listed = lists.into_iter().flat_map(|(option, names)| names.iter().map(move |name| (option, name)));
        for (option, name) in users.into_iter().filter(|(_, name)| !name.is_empty()).chain(listed) {
            if users::user(name).is_none() {
                fault(option, name.clone(), "there is no such user", Code::InvalidOption);
            }
        }
        for (option, name) in [("group", &self.group), ("socket_group", &self.socket_group)] {
            if !name.is_empty() && users::group(name).is_none() {
                fault(option, name.clone(), "there is no such group", Code::InvalidOption);
            }
        }
        let folders = [("chroot", &self.chroot), ("chdir", &self.chdir)];
        for (option, folder) in folders.into_iter().filter(|(_, folder)| !folder.is_empty()) {
            // Within another root it is another folder.
            if option == "chroot" || self.chroot.is_empty() {
                match std::fs::metadata(folder) {
                    Ok(meta) if meta.is_dir() => {}
                    Ok(_) => fault(option, folder.clone(), "is not a folder", Code::InvalidOption),
                    Err(error) => fault(option, folder.clone(), &format!("stat: {error}"), Code::InvalidOption),
                }
            }
        }
        self.look_at_rights(fault);
    }

    /// What takes a right that this process has not: a worker's start would fail at it, again and again.
    fn look_at_rights(&self, fault: &mut impl FnMut(&str, String, &str, Code)) {
        let mut only_root = |option: &str, value: &str, right: Right| {
            if !users::has(right) {
                let reason = format!("only root may do that: start as root, or leave {option} out");
                fault(option, value.to_owned(), &reason, Code::PermissionDenied);
            }
        };
        let other = |name: &str| users::user(name).is_some_and(|user| user.uid != process::effective_uid());
        if other(&self.user) {
            // Its groups come with it.
            only_root("user", &self.user, if users::has(Right::SetUid) { Right::SetGid } else { Right::SetUid });
        }
        if other(&self.socket_owner) {
            only_root("socket_owner", &self.socket_owner, Right::Chown);
        }
        if !self.keeps_identity() && users::group(&self.group).is_some() {
            only_root("group", &self.group, Right::SetGid);
        }
        if users::group(&self.socket_group).is_some_and(|group| !users::is_in(group)) {
            only_root("socket_group", &self.socket_group, Right::Chown);
        }
        if !self.chroot.is_empty() {
            only_root("chroot", &self.chroot, Right::SysChroot);
        }
        if self.nice < 0 && process::own_nice().saturating_add(self.nice).max(-20) < process::lowest_nice() {
            only_root("nice", &self.nice.to_string(), Right::SysNice);
        }
        let limits = [
            ("rlimit_nofile", libc::RLIMIT_NOFILE, self.rlimit_nofile),
            ("rlimit_core", libc::RLIMIT_CORE, self.rlimit_core.0),
            ("rlimit_as", libc::RLIMIT_AS, self.rlimit_as.0),
        ];
        for (option, resource, value) in limits {
            let highest = process::highest_limit(resource as _).unwrap_or(u64::MAX);
            if value > highest && !users::has(Right::SysResource) {
                let reason = format!("only root may raise it above this process's own hard limit, {highest}");
                fault(option, value.to_string(), &reason, Code::PermissionDenied);
            }
        }
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
        if most.is_some_and(|most| self.rlimit_nofile > most) {
            let reason = format!("the system allows {} at most (sysctl fs.nr_open)", most.unwrap_or(0));
            fault("rlimit_nofile", self.rlimit_nofile.to_string(), &reason, Code::InvalidOption);
        }
    }

    /// Whether `user` and `group` are what this process is already, so that workers need to become nobody else.
    pub(super) fn keeps_identity(&self) -> bool {
        if self.user.is_empty() && self.group.is_empty() {
            return true;
        }
        let myself = process::effective_uid();
        let same_user = self.user.is_empty() || users::user(&self.user).is_some_and(|user| user.uid == myself);
        let same_group =
            self.group.is_empty() || users::group(&self.group).is_some_and(|group| group == process::effective_gid());
        // Root drops its further groups even so.
        myself != 0 && same_user && same_group
    }

    /// Whether memory is counted as the proportional share.
    pub fn memory_kind_pss(&self) -> bool {
        self.memory_kind == MemoryKind::Pss
    }

    /// The most workers the pool may have, reload not counted.
    pub fn most_workers(&self) -> u32 {
        match self.sizing {
            Sizing::Static => self.workers,
            _ if self.max_workers == 0 => self.workers,
            _ => self.max_workers,
        }
    }

    /// Lines of the scoreboard: every worker twice (old and new), and room to scale at run time and by upgrades, which keep the
    /// scoreboard. A line that is never used costs no memory.
    pub fn lines(&self) -> u32 {
        (self.most_workers().max(self.workers) * 2 + self.max_surge + 56).clamp(1024, 2 * MAX_WORKERS + 64)
    }
}

/// A pool larger than this is several pools.
pub const MAX_WORKERS: u32 = 10_000;

/// What the manager does on a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // named for what they do
pub enum SignalDoes {
    Drain,
    Quit,
    Reload,
    Upgrade,
    Reopen,
    More,
    Fewer,
    Ignore,
}

/// Signals that may be named, without `SIG`.
pub const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CONT", libc::SIGCONT),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("WINCH", libc::SIGWINCH),
];

/// The number of a signal by name (`TERM` or `SIGTERM`).
pub fn signal_number(name: &str) -> Option<i32> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS.iter().find(|row| row.0 == short).map(|row| row.1)
}

/// Reads `TERM=drain`.
pub fn parse_signal_entry(entry: &str) -> Option<(i32, SignalDoes)> {
    let (name, does) = entry.split_once('=')?;
    let does = match does {
        "drain" => SignalDoes::Drain,
        "quit" => SignalDoes::Quit,
        "reload" => SignalDoes::Reload,
        "upgrade" => SignalDoes::Upgrade,
        "reopen" => SignalDoes::Reopen,
        "more" => SignalDoes::More,
        "fewer" => SignalDoes::Fewer,
        "ignore" => SignalDoes::Ignore,
        _ => return None,
    };
    Some((signal_number(name)?, does))
}

/// The known name that was probably meant: few letters away, or with the same beginning. For "did you mean".
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let shared = |other: &str| name.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let rated = known.map(|other| (distance(name, other), usize::MAX - shared(other), other));
    let (away, unshared, other) = rated.min_by_key(|(away, unshared, _)| {
        let beginning = usize::MAX - unshared;
        (if *away <= 2 { *away } else { usize::MAX }, usize::MAX - beginning)
    })?;
    let near = away <= 2 && away < name.chars().count().max(2) - 1;
    (near || usize::MAX - unshared >= 3).then_some(other)
}

/// How many letters have to be changed, left out or put in.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.chars().enumerate() {
        let mut corner = at;
        let mut left = at + 1;
        for (b, above) in other.iter().zip(row.iter_mut().skip(1)) {
            let here = (corner + usize::from(a != *b)).min(left + 1).min(*above + 1);
            corner = *above;
            left = here;
            *above = here;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_its_own_default_and_shows_it_again() {
        let options = PoolOptions::defaults().unwrap();
        for spec in OPTIONS {
            let mut again = options.clone();
            let shown = options.get(spec.name).unwrap();
            if !spec.list {
                again.set(spec.name, &shown).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(again.get(spec.name).unwrap(), shown, "{}", spec.name);
            }
        }
        assert!(options.validate().is_empty());
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let mut options = PoolOptions::default();
        for (name, value) in [("workers", "0"), ("max-surge", "0"), ("listen", "nonsense"), ("stop_signal", "NOPE")] {
            options.set(name, value).unwrap();
        }
        assert_eq!(options.validate().len(), 4);
        assert_eq!(options.set("max_request", "1").unwrap_err().code, Code::UnknownOption);
        assert!(options.set("max_request", "1").unwrap_err().to_string().contains("max_request"));
        assert_eq!(options.set("workers", "many").unwrap_err().code, Code::InvalidOption);
    }

    #[test]
    fn the_option_that_was_meant_is_named() {
        let meant = |name: &str| nearest(name, OPTIONS.iter().map(|spec| spec.name));
        for (typed, known) in [
            ("wokers", "workers"),
            ("wrkers", "workers"),
            ("worker", "workers"),
            ("lisen", "listen"),
            ("max_request", "max_requests"),
            ("backlg", "backlog"),
            ("request_tiemout", "request_timeout"),
            ("uesr", "user"),
        ] {
            assert_eq!(meant(typed), Some(known), "{typed}");
        }
        assert_eq!(meant("verbose"), None);
        assert_eq!(meant("x"), None);
    }

    #[test]
    fn what_this_machine_does_not_have_is_a_fault_with_the_options_name() {
        let mut options = PoolOptions::default();
        for (name, value) in [
            ("user", "nobody-of-that-name"),
            ("group", "no-such-group"),
            ("socket_owner", "nobody-of-that-name"),
            ("socket_group", "no-such-group"),
            ("control_users", "nobody-of-that-name"),
            ("chdir", "/nonexistent/folder"),
        ] {
            options.set(name, value).unwrap();
        }
        let found: Vec<String> = options.validate().iter().map(|fault| fault.option.clone()).collect();
        for name in ["user", "group", "socket_owner", "socket_group", "control_users", "chdir"] {
            assert!(found.iter().any(|option| option == name), "{name} in {found:?}");
        }
    }
}
