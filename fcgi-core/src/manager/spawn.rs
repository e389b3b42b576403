//! From options and a command to what a child needs: program, arguments, environment, descriptors, identity.
//!
//! All that can be wrong is found here, before anything is bound or started.

use super::listen::Listener;
use super::options::{Cooperate, OptionFault, PoolOptions};
use super::scoreboard::env;
use crate::error::{Code, Coded};
use crate::sys::process::{ExecPlan, Identity};
use crate::sys::users;
use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The name of the object that is preloaded into foreign workers.
pub const WORKER_OBJECT: &str = "libfcgiguard_worker.so";
/// Descriptors of the worker's own pipes come after those of LISTEN_FDS.
const FIRST_LISTEN_FD: RawFd = 3;

/// A command that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No command was given.
    #[error("no command: write it after --")]
    Missing,
    /// It is nowhere in PATH.
    #[error("command {0:?} was not found in PATH{apart}", apart = apart(.0))]
    NotFound(OsString),
    /// The path is no executable file.
    #[error("command {}: {reason}", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It has a NUL byte.
    #[error("command or environment contains a NUL byte")]
    Nul,
}

/// Written as one text, as a shell would take it.
fn apart(name: &OsStr) -> &'static str {
    if name.as_bytes().contains(&b' ') {
        "; program and arguments are words of their own, there is no shell: [\"perl\", \"app.pl\"], or -- perl app.pl"
    } else {
        ""
    }
}

impl Coded for CommandError {
    fn code(&self) -> Code {
        match self {
            CommandError::Missing | CommandError::Nul => Code::InvalidArgument,
            CommandError::NotFound(_) | CommandError::NotExecutable { .. } => Code::CommandNotFound,
        }
    }
}

/// A command that can be started.
#[derive(Clone, Debug)]
pub struct Command {
    program: PathBuf,
    argv: Vec<OsString>,
    /// A static program takes no preloaded object.
    pub is_static: bool,
}

impl Command {
    /// Finds the program, as a shell would, and looks at what kind of file it is.
    pub fn resolve(argv: &[OsString]) -> Result<Command, CommandError> {
        let name = argv.first().ok_or(CommandError::Missing)?;
        let program = if name.as_bytes().contains(&b'/') {
            PathBuf::from(name)
        } else {
            let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            std::env::split_paths(&path)
                .map(|folder| folder.join(name))
                .find(|file| is_executable(file).is_ok())
                .ok_or_else(|| CommandError::NotFound(name.clone()))?
        };
        let bad = |path: &Path, reason: String| CommandError::NotExecutable { path: path.to_owned(), reason };
        is_executable(&program).map_err(|reason| bad(&program, reason))?;
        let mut head = [0u8; 4096];
        let count = std::fs::File::open(&program).and_then(|mut f| f.read(&mut head)).unwrap_or(0);
        let head = head.get(..count).unwrap_or_default();
        let mut is_static = is_static_elf(head);
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
            let interpreter = line.split(|b| b.is_ascii_whitespace()).find(|part| !part.is_empty()).unwrap_or_default();
            let interpreter = PathBuf::from(OsStr::from_bytes(interpreter));
            is_executable(&interpreter)
                .map_err(|reason| bad(&program, format!("its interpreter {}: {reason}", interpreter.display())))?;
            is_static = false;
        }
        Ok(Command { program, argv: argv.to_vec(), is_static })
    }
}

impl Command {
    /// The program's file.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

fn is_executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let meta = std::fs::metadata(path).map_err(|e| format!("stat: {e}"))?;
    if !meta.is_file() {
        return Err("is not a file".to_owned());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("is not executable (chmod +x)".to_owned());
    }
    Ok(())
}

/// An ELF program without an interpreter (PT_INTERP): no loader, so nothing can be preloaded.
fn is_static_elf(head: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    if head.get(..5) != Some(b"\x7fELF\x02") {
        return false;
    }
    let u16_at = |at: usize| head.get(at..at + 2).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8);
    let (Some(offset), Some(size), Some(count)) = (head.get(32..40), u16_at(54), u16_at(56)) else {
        return false;
    };
    let offset = offset.iter().rev().fold(0usize, |sum, &b| sum << 8 | usize::from(b));
    !(0..count).any(|index| {
        let at = offset.saturating_add(index * size);
        let kind = head.get(at..at.saturating_add(4));
        // A header outside of what was read: let it pass as dynamic, the worker itself will tell.
        kind.is_none_or(|k| u32::from_le_bytes([k[0], k[1], k[2], k[3]]) == PT_INTERP)
    })
}

/// Where the preloaded object lies: FCGIGUARD_WORKER_SO, beside the program, in ../lib or ../lib/fcgiguard.
pub fn find_worker_object() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FCGIGUARD_WORKER_SO") {
        return Some(PathBuf::from(path)).filter(|p| p.is_file());
    }
    let here = std::env::current_exe().ok()?;
    let folder = here.parent()?;
    let candidates = [folder.to_owned(), folder.join("../lib"), folder.join("../lib/fcgiguard"), folder.join("..")];
    candidates.into_iter().map(|folder| folder.join(WORKER_OBJECT)).find(|path| path.is_file())
}

/// The user that workers become; None to stay.
pub fn identity(options: &PoolOptions) -> Result<Option<Identity>, OptionFault> {
    let fault = |option: &str, value: &str| OptionFault {
        option: option.to_owned(),
        value: value.to_owned(),
        reason: format!("there is no such {option}"),
        code: Code::InvalidOption,
    };
    if options.keeps_identity() {
        return Ok(None);
    }
    let myself = crate::sys::process::effective_uid();
    let user = match options.user.as_str() {
        // With its own further groups, not root's.
        "" => users::user(&myself.to_string()).unwrap_or(users::User { uid: myself, gid: 0, name: String::new() }),
        name => users::user(name).ok_or_else(|| fault("user", name))?,
    };
    let gid = match options.group.as_str() {
        "" => user.gid,
        name => users::group(name).ok_or_else(|| fault("group", name))?,
    };
    let mut groups = users::groups_of(&user);
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    Ok(Some(Identity { uid: user.uid, gid, groups }))
}

/// Everything of a worker's start that is the same for all workers of a pool.
pub struct Template {
    command: Command,
    options: PoolOptions,
    identity: Option<Identity>,
    worker_object: Option<PathBuf>,
    pub(super) death_signal: i32,
}

/// What differs from worker to worker.
pub struct Wiring<'a> {
    /// Its line.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// The scoreboard's descriptor.
    pub board: RawFd,
    /// Read end of its lifeline.
    pub lifeline: RawFd,
    /// Write end of its ready pipe.
    pub ready: RawFd,
    /// Write end of its output pipe, when captured.
    pub output: Option<RawFd>,
    /// Name of the manager's notify socket.
    pub notify: Option<&'a str>,
    /// Whether the listening sockets are in blocking mode.
    pub blocking: bool,
}

impl Template {
    /// Checks everything that can be wrong with the workers' start.
    pub fn new(command: Command, options: &PoolOptions) -> Result<Template, OptionFault> {
        let identity = identity(options)?;
        let worker_object =
            if options.cooperate == Cooperate::Preload && !command.is_static { find_worker_object() } else { None };
        Ok(Template { command, options: options.clone(), identity, worker_object, death_signal: libc::SIGTERM })
    }

    /// The program's file.
    pub fn program(&self) -> &Path {
        self.command.program()
    }

    /// Whether workers are expected to cooperate.
    pub fn preloads(&self) -> bool {
        self.worker_object.is_some()
    }

    /// The plan of one worker.
    pub fn plan(&self, listeners: &[Listener], wiring: &Wiring<'_>) -> Result<ExecPlan, CommandError> {
        let c = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| CommandError::Nul);
        let argv = self.command.argv.iter().map(|a| c(a.as_bytes().to_vec())).collect::<Result<Vec<_>, _>>()?;

        // Descriptor 0 is the first listener (the FastCGI convention), from 3 on come all of them (LISTEN_FDS).
        let mut descriptors: Vec<(RawFd, RawFd)> = Vec::new();
        if let Some(first) = listeners.first() {
            descriptors.push((first.as_raw_fd(), 0));
        }
        match wiring.output {
            Some(output) => descriptors.extend([(output, 1), (output, 2)]),
            None => descriptors.extend([(1, 1), (2, 2)]),
        }
        let mut next = FIRST_LISTEN_FD;
        for listener in listeners {
            descriptors.push((listener.as_raw_fd(), next));
            next += 1;
        }
        let [board, lifeline, ready] = [next, next + 1, next + 2];
        descriptors.extend([(wiring.board, board), (wiring.lifeline, lifeline), (wiring.ready, ready)]);

        let mut vars: Vec<(OsString, OsString)> = if self.options.clear_env {
            std::env::vars_os().filter(|(name, _)| name == "PATH").collect()
        } else {
            std::env::vars_os().filter(|(name, _)| !is_ours(name)).collect()
        };
        let mut set = |name: &str, value: String| {
            vars.retain(|(known, _)| known != name);
            vars.push((name.into(), value.into()));
        };
        for entry in &self.options.env.0 {
            if let Some((name, value)) = entry.split_once('=') {
                set(name, value.to_owned());
            }
        }
        set("LISTEN_FDS", listeners.len().to_string());
        set("LISTEN_FDNAMES", vec![self.options.name.as_str(); listeners.len()].join(":"));
        let ports: Vec<String> =
            listeners.iter().enumerate().map(|(at, l)| format!("{}={}", l.starter_name(), at + 3)).collect();
        set("SERVER_STARTER_PORT", ports.join(";"));
        set(env::BOARD_FD, board.to_string());
        set(env::LIFELINE_FD, lifeline.to_string());
        set(env::READY_FD, ready.to_string());
        set(env::SLOT, wiring.slot.to_string());
        set(env::GENERATION, wiring.generation.to_string());
        set(env::MANAGER_PID, crate::sys::process::pid().to_string());
        set(env::BLOCKING, if wiring.blocking { "1" } else { "0" }.to_owned());
        if let Some(name) = wiring.notify {
            set("NOTIFY_SOCKET", name.to_owned());
        }
        if let Some(object) = &self.worker_object {
            let mut list = object.clone().into_os_string();
            if let Some((_, old)) = vars.iter().find(|(name, _)| name == "LD_PRELOAD") {
                list.push(":");
                list.push(old);
            }
            vars.retain(|(known, _)| known != "LD_PRELOAD");
            vars.push(("LD_PRELOAD".into(), list));
        }
        let mut envp = Vec::with_capacity(vars.len() + 1);
        for (mut name, value) in vars {
            name.push("=");
            name.push(value);
            envp.push(c(name.into_vec())?);
        }
        let listen_pid_at = Some(envp.len());
        envp.push(c(b"LISTEN_PID=0".to_vec())?);

        let o = &self.options;
        let path = |text: &str| if text.is_empty() { Ok(None) } else { c(text.as_bytes().to_vec()).map(Some) };
        let limits = [
            (libc::RLIMIT_NOFILE, o.rlimit_nofile),
            (libc::RLIMIT_CORE, o.rlimit_core.0),
            (libc::RLIMIT_AS, o.rlimit_as.0),
        ];
        Ok(ExecPlan {
            program: c(self.command.program.as_os_str().as_bytes().to_vec())?,
            argv,
            envp,
            listen_pid_at,
            descriptors,
            identity: self.identity.clone(),
            umask: o.umask.0,
            chroot: path(&o.chroot)?,
            chdir: path(&o.chdir)?,
            limits: limits.into_iter().filter(|(_, value)| *value > 0).collect(),
            nice: o.nice,
            no_new_privs: o.no_new_privs,
            death_signal: self.death_signal,
        })
    }
}

/// Variables that speak to this process and not to its workers. Where a language finds the library is the workers' business.
fn is_ours(name: &OsStr) -> bool {
    (name.as_bytes().starts_with(b"FCGIGUARD_") && name != "FCGIGUARD_LIB")
        || [
            "LISTEN_PID",
            "LISTEN_FDS",
            "LISTEN_FDNAMES",
            "NOTIFY_SOCKET",
            "WATCHDOG_PID",
            "WATCHDOG_USEC",
            "SERVER_STARTER_PORT",
        ]
        .iter()
        .any(|known| name == *known)
}
