//! Scenes of the manager: a pool from its start to its end, with workers that are forks and with workers that are executed.

use super::scenes::{self, ask, Told};
use fcgi_core::manager::executor::{Manager, Mode, PlainHost, Step};
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::policy::Phase;
use fcgi_core::manager::upgrade::Image;
use fcgi_core::manager::worker::Worker;
use fcgi_core::responder::{NoGate, Responder, ResponderOptions};
use fcgi_core::sys::fault::{self, Role};
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::mpsc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than a pool needs for any of its steps by far.
const PATIENCE: Duration = Duration::from_secs(10);

const SOCKET: &str = "pool.sock";
const CONTROL: &str = "control.sock";

pub fn options(more: &[(&str, &str)]) -> PoolOptions {
    let mut options = PoolOptions::default();
    let common = [
        ("listen", "unix:pool.sock"),
        ("listen", "127.0.0.1:0"),
        ("control", "unix:control.sock"),
        ("pidfile", "pid"),
        ("workers", "2"),
        ("restart_delay", "20ms"),
        ("drain_repeat", "50ms"),
        ("sample_interval", "50ms"),
        ("stop_timeout", "5s"),
        ("upgrade_timeout", "5s"),
        ("self_probe", "100ms"),
    ];
    for (name, value) in common.iter().chain(more) {
        options.set(name, value).expect("an option");
    }
    options
}

/// What a worker does.
fn answer(responder: &mut Responder) -> i32 {
    loop {
        match responder.accept() {
            Ok(Some(mut request)) => {
                let mut body = Vec::new();
                let mut piece = [0u8; 4096];
                let read = loop {
                    match request.read(&mut piece) {
                        Ok(0) => break Ok(()),
                        Ok(count) => body.extend_from_slice(&piece[..count]),
                        Err(error) => break Err(error),
                    }
                };
                let head = format!("Content-Type: text/plain\r\n\r\n{} bytes\n", body.len());
                let done = read.and_then(|()| request.write(head.as_bytes())).and_then(|()| request.finish());
                if let Err(error) = done {
                    eprintln!("said worker: {error}");
                }
            }
            Ok(None) => return 0,
            Err(error) => {
                eprintln!("said worker: {error}");
                return 1;
            }
        }
    }
}

/// The rest of a forked worker's life.
fn work(worker: Worker, listen: RawFd) -> ! {
    fault::become_role(Role::Worker);
    let code = match Responder::borrowed(listen, ResponderOptions::default(), Box::new(Arc::new(worker))) {
        Ok(mut responder) => answer(&mut responder),
        Err(error) => {
            eprintln!("said worker: {error}");
            1
        }
    };
    fcgi_core::sys::process::exit_now(code)
}

/// The program that a pool of a command executes.
pub fn serve_command() -> i32 {
    let gate: Box<dyn fcgi_core::responder::Gate> = match Worker::from_environment() {
        Ok(Some(worker)) => Box::new(Arc::new(worker)),
        _ => Box::new(NoGate),
    };
    let open = scenes::descriptors();
    // Standard ones, the two listening sockets, scoreboard, lifeline and ready pipe.
    if open.len() > 8 || open.iter().any(|one| one.contains("/dev/full")) {
        eprintln!("WRONG descriptors leaked into a worker: {open:?}");
    }
    match Responder::from_stdin(ResponderOptions::default(), gate) {
        Ok(mut responder) => answer(&mut responder),
        Err(_) => 1,
    }
}

/// Runs the pool until `done` says so; false if its patience or the pool ended first.
fn drive(manager: &mut Manager, told: &mut Told, mut done: impl FnMut(&mut Manager) -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match manager.step(20) {
            Ok(Step::Worker(worker)) => {
                let listen = manager.listener(0).expect("a listener");
                work(worker, listen)
            }
            Ok(Step::Ended { code, reason }) => {
                told.ended = Some((code, reason));
                return done(manager);
            }
            Ok(_) => {}
            Err(error) => {
                told.say(error.to_string());
                told.wrong.push(format!("the loop ends: {error}"));
                return false;
            }
        }
        while let Some(notice) = manager.next_notice() {
            told.say(notice.text);
        }
        if done(manager) {
            return true;
        }
    }
    false
}

fn ready(manager: &Manager) -> usize {
    manager.status().workers.iter().filter(|w| w.phase == Phase::Ready).count()
}

/// Asks from another thread while the pool runs; each question is repeated until it is answered. How often it was not.
fn asks(manager: &mut Manager, told: &mut Told, socket: &'static str, questions: &'static [(&str, usize)]) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lost = Vec::new();
        for (uri, body) in questions {
            let until = Instant::now() + PATIENCE / 2;
            while let Err(error) = ask(socket, uri, *body) {
                lost.push(format!("{uri}: {error}"));
                if Instant::now() > until {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = sender.send(lost);
    });
    let mut lost = None;
    drive(manager, told, |_| {
        lost = receiver.try_recv().ok();
        lost.is_some()
    });
    match lost {
        Some(lost) => told.lost.extend(lost),
        None => told.wrong.push(format!("no answer at {socket}")),
    }
}

fn life(told: &mut Told, options: PoolOptions, mode: Mode, image: Option<Image>) {
    let mut manager = match Manager::open(options, mode) {
        Ok(manager) => manager,
        Err(error) => {
            told.failed = Some(error.to_string());
            return;
        }
    };
    if !drive(&mut manager, told, |m| ready(m) >= 2) {
        told.wrong.push("no two workers become ready".to_owned());
    }
    asks(&mut manager, told, SOCKET, &[("/a", 0), ("/b", 20_000), ("/c", 0)]);
    asks(&mut manager, told, CONTROL, &[("/status", 0), ("/metrics", 0)]);
    if let Some(image) = image {
        manager.set_image(image);
        let change = manager.upgrade();
        outcome(&mut manager, told, "upgrade", change);
    }
    let change = manager.reload("test");
    outcome(&mut manager, told, "reload", change);
    if !drive(&mut manager, told, |m| ready(m) >= 2) {
        told.wrong.push("no two workers after the reload".to_owned());
    }
    asks(&mut manager, told, SOCKET, &[("/d", 0), ("/e", 0)]);
    manager.scale(3);
    if !drive(&mut manager, told, |m| ready(m) >= 3) {
        told.wrong.push("no three workers".to_owned());
    }
    manager.stop();
    drive(&mut manager, told, |_| false);
    match told.ended.take() {
        Some((0, _)) => {}
        Some((code, reason)) => told.wrong.push(format!("ended with {code}: {reason}")),
        None => told.wrong.push("does not end".to_owned()),
    }
    // Who asks the manager itself loses his answer with his connection.
    if scenes::is_the_peers() {
        told.lost.retain(|lost| !lost.starts_with("/status") && !lost.starts_with("/metrics"));
    }
    // A fault in the manager, or in a child that serves nothing yet, loses no request.
    if !told.lost.is_empty() && !scenes::struck_a_worker() {
        told.wrong.push(format!("requests were lost: {:?}", told.lost));
    }
}

fn outcome(manager: &mut Manager, told: &mut Told, what: &str, change: u64) {
    let mut result = None;
    drive(manager, told, |m| {
        while let Some((this, end)) = m.next_outcome() {
            if this == change {
                result = Some(end);
            }
        }
        result.is_some()
    });
    match result {
        Some(Ok(_)) => {}
        Some(Err(reason)) if what == "upgrade" => told.say(format!("upgrade: {reason}")),
        Some(Err(reason)) => told.failed = Some(format!("{what}: {reason}")),
        None => told.wrong.push(format!("the {what} has no end")),
    }
}

/// Workers that are forks of the manager.
pub fn fork(told: &mut Told) {
    life(told, options(&[]), Mode::Fork(Box::new(PlainHost)), None);
}

/// Workers of a command, prepared in every way, and an upgrade whose new image refuses.
pub fn exec(told: &mut Told) {
    let mut more = vec![
        ("cooperate", "none"),
        ("output", "capture"),
        ("umask", "027"),
        ("chdir", "/"),
        ("rlimit_core", "0"),
        ("rlimit_nofile", "256"),
        ("nice", "1"),
        ("no_new_privs", "yes"),
    ];
    if fcgi_core::sys::process::effective_uid() == 0 {
        more.extend([("user", "nobody"), ("chroot", "/")]);
    }
    // A host's descriptor that it forgot to close on exec: no worker may have it.
    // SAFETY: opens a file and owns it.
    let forgotten = unsafe { std::os::fd::OwnedFd::from_raw_fd(libc::open(c"/dev/full".as_ptr(), libc::O_RDONLY)) };
    let this = std::env::current_exe().expect("own path");
    let command: Vec<OsString> = vec![this.clone().into(), "serve".into()];
    let refuses = Image::new(vec![this.into(), "next-image".into()]);
    life(told, options(&more), Mode::Exec(command), Some(refuses));
    drop(forgotten);
}

/// The descriptors that were open before the pool, for the image that ends it.
const BEFORE: &str = "FCGIGUARD_FAULT_OPEN";

/// A pool whose manager changes its image; the second half of its life is the new image's.
pub fn upgrade(told: &mut Told) {
    let this = std::env::current_exe().expect("own path");
    let command: Vec<OsString> = vec![this.clone().into(), "serve".into()];
    std::env::set_var(BEFORE, scenes::descriptors().join("\n"));
    // As many words as `play` has: who is hurt is read from them.
    let words = std::env::args_os().skip(2);
    let image = [this.into_os_string(), "new-image".into()].into_iter().chain(words).collect();
    // Returns only if the new image was refused.
    life(told, upgradable(), Mode::Exec(command), Some(Image::new(image)));
    if fault::hit().is_none() {
        told.wrong.push("the upgrade was refused without a fault".to_owned());
    }
}

fn upgradable() -> PoolOptions {
    options(&[("cooperate", "none"), ("output", "capture")])
}

/// The new image: it takes over pool and workers, serves, and ends the pool.
pub fn new_image() -> i32 {
    // The dry run has no descriptor but what it needs.
    if !fcgi_core::manager::handover::is_check() {
        fault::resume().expect("the counts");
    }
    fault::become_role(Role::Main);
    let mut told = Told::default();
    let this = std::env::current_exe().expect("own path");
    life(&mut told, upgradable(), Mode::Exec(vec![this.into(), "serve".into()]), None);
    fault::become_role(Role::None);
    if told.failed.is_some() {
        // It has let its workers go and would end now; they end as init's children.
        // SAFETY: waits for any child; a null status is allowed.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
    }
    let open = scenes::descriptors();
    let before = std::env::var(BEFORE).unwrap_or_default();
    if open.join("\n") != before {
        told.wrong.push(format!("descriptors now: {open:?}, before: {:?}", before.lines().collect::<Vec<_>>()));
    }
    // SAFETY: asks for any child; a null status is allowed.
    if unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } != -1 {
        told.wrong.push("a child is left over or was not reaped".to_owned());
    }
    if std::env::args().nth(3).is_none() {
        super::report_counts();
    }
    if let Some(line) = fault::hit() {
        println!("hit {line}");
    }
    for text in &told.said {
        println!("said {text}");
    }
    if let Some(reason) = &told.failed {
        let call = std::env::args().nth(4).unwrap_or_default();
        if !super::named(&told, super::in_messages(&call)) {
            told.wrong.push(format!("the message does not name the call: {reason}"));
        }
    }
    for text in &told.wrong {
        println!("WRONG {text}");
    }
    i32::from(!told.wrong.is_empty())
}

/// The new image of an upgrade that is to fail: it refuses in its dry run.
pub fn refusing_image() -> i32 {
    let _ = std::io::stdin().read(&mut [0]);
    eprintln!("this image is not wanted");
    3
}
