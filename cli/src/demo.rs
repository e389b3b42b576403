//! `fcgiguard demo`: the main job in front of one's eyes, within a minute: a pool, probed, loaded, hurt, reloaded, orphaned.
//!
//! Everything is real: this program starts itself as `fcgiguard run` with the built-in responder (or a program of the user's)
//! and treats it as an operator would, by signals and probes.

use crate::bench::{Bench, Figures, Load};
use crate::flags::{cgi_params, parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::probe::{Outcome, Probe, ProbeReport};
use fcgi_core::sys::net::SockAddr;
use fcgi_core::sys::{fd, process, time};
use fcgi_core::units::format_micros;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const HELP: &str = "\
Usage: fcgiguard demo [--app 'COMMAND']

Starts a pool of four workers on a unix socket in a temporary folder, probes it, sends it load, kills a worker, reloads it under
load, kills the manager, and says at each step what happened and how many requests were lost. Ends by itself within a minute;
exits with 1 if anything was lost that should not have been. COMMAND is any FastCGI program that serves descriptor 0; without it
the built-in responder is used.
";

const WORKERS: usize = 4;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut app = None;
    while let Ok(Some(arg)) = parser.next() {
        match arg {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            lexopt::Arg::Long("app") => app = Some(flags.text("app", &mut parser)),
            other => flags.unexpected(other),
        }
    }
    if flags.report("demo") {
        return ExitCode::from(EXIT_USAGE);
    }
    let folder = std::env::temp_dir().join(format!("fcgiguard-demo-{}", std::process::id()));
    let result = std::fs::create_dir(&folder).map_err(Into::into).and_then(|()| play(&folder, app.as_deref()));
    let _ = std::fs::remove_dir_all(&folder);
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fcgiguard demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The pool under observation; ended by its own pid when dropped.
struct Pool {
    child: Child,
    log: Vec<u8>,
    seen: usize,
}

impl Pool {
    fn start(socket: &Path, app: Option<&str>) -> Fallible<Pool> {
        let me = std::env::current_exe()?;
        let mut command = Command::new(&me);
        command
            .args(["run", "--workers", &WORKERS.to_string(), "--listen"])
            .arg(format!("unix:{}", socket.display()))
            .arg("--");
        match app {
            // A shell reads the user's words and is then replaced by the program.
            Some(app) => command.args(["sh", "-c", &format!("exec {app}")]),
            None => command.arg(&me).arg("echo"),
        };
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(pipe) = &child.stderr {
            fd::set_nonblocking(pipe.as_fd(), true)?;
        }
        Ok(Pool { child, log: Vec::new(), seen: 0 })
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn workers(&self) -> Vec<i32> {
        children(self.pid())
    }

    /// Reads the log as far as it has come.
    fn read(&mut self) {
        let mut buffer = [0u8; 4096];
        while let Some(Ok(count)) = self.child.stderr.as_ref().map(|pipe| fd::read(pipe.as_fd(), &mut buffer)) {
            if count == 0 {
                return;
            }
            self.log.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    }

    /// Whether a line with this text came since the last one that was found.
    fn said(&mut self, text: &str) -> Option<String> {
        self.read();
        let new = String::from_utf8_lossy(self.log.get(self.seen..).unwrap_or_default()).into_owned();
        let at = new.find(text)?;
        let start = new.get(..at)?.rfind('\n').map_or(0, |n| n + 1);
        let end = new.get(at..)?.find('\n').map(|n| at + n)?;
        self.seen += end;
        Some(new.get(start..end)?.to_owned())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = process::kill(self.pid(), libc::SIGTERM);
            let end = time::monotonic_ms() + 5000;
            while self.child.try_wait().ok().flatten().is_none() && time::monotonic_ms() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

fn step(title: &str) {
    println!("\n== {title}");
}

fn say(text: &str) {
    println!("   {text}");
}

/// Asks until the pool answers as `wanted` says, or ten seconds are over.
fn await_probe(socket: &Path, wanted: impl Fn(&ProbeReport) -> bool) -> Fallible<ProbeReport> {
    let address = Address::Unix(socket.to_owned());
    let mut probe = Probe::new();
    probe.timeout_ms = 2000;
    let end = time::monotonic_ms() + 10_000;
    loop {
        let report = probe.run(&address)?;
        if wanted(&report) || time::monotonic_ms() > end {
            return Ok(report);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn load(socket: &Path, duration_ms: u64) -> Bench {
    Bench::new(Load {
        target: SockAddr::Unix(socket.to_owned()),
        connections: 4,
        requests: 0,
        duration_ms,
        rate: 0,
        keep_alive: false,
        retry_stale: false,
        timeout_ms: 10_000,
        params: cgi_params("GET", None, "", 0),
        body: 0,
        expect_body: None,
        by_header: None,
    })
}

/// Sends load and does `each` between its steps.
fn under_load(socket: &Path, duration_ms: u64, mut each: impl FnMut()) -> Figures {
    let mut bench = load(socket, duration_ms);
    while bench.step(2) {
        each();
    }
    bench.figures
}

fn figures(f: &Figures) -> String {
    let rate = f.answered as f64 * 1e6 / f.elapsed_us.max(1) as f64;
    let times = [f.percentile(0.5), f.percentile(0.99), f.worst_gap_us].map(format_micros);
    let [p50, p99, gap] = times;
    format!("{} requests sent, {} lost; {rate:.0} a second, p50 {p50}, p99 {p99}, longest pause {gap}", f.sent, f.lost)
}

fn play(folder: &Path, app: Option<&str>) -> Fallible<bool> {
    let socket: PathBuf = folder.join("demo.sock");
    let mut good = true;
    let mut check = |ok: bool, text: &str| {
        if !ok {
            println!("   NOT AS IT SHOULD BE: {text}");
            good = false;
        }
    };

    step("a pool: one socket, four workers");
    let started = time::monotonic_ns();
    let mut pool = Pool::start(&socket, app)?;
    let report = await_probe(&socket, |r| r.outcome == Outcome::Alive)?;
    let took = format_micros((time::monotonic_ns() - started) / 1000);
    if report.outcome != Outcome::Alive {
        pool.read();
        // The beginning says it; what follows repeats it.
        pool.log.truncate(1000);
        return Err(format!("the pool did not come up: {report}\n{}", String::from_utf8_lossy(&pool.log)).into());
    }
    say(&format!("manager {}, workers {:?}; answered its first probe after {took}", pool.pid(), pool.workers()));

    step("probe");
    say(&report.to_string());

    step("load for two seconds");
    let calm = under_load(&socket, 2000, || {});
    say(&figures(&calm));
    check(calm.lost == 0 && calm.answered > 0, "requests were lost");

    step("a worker is KILLed under load");
    pool.read();
    pool.seen = pool.log.len();
    let mut killed_at = 0;
    let (mut noticed, mut replaced_after) = (false, None);
    let begun = time::monotonic_ms();
    let hurt = under_load(&socket, 2000, || {
        if killed_at == 0 && time::monotonic_ms() > begun + 500 {
            if let Some(&victim) = pool.workers().first() {
                let _ = process::kill(victim, libc::SIGKILL);
                killed_at = time::monotonic_ns();
                say(&format!("KILLed worker {victim}"));
            }
        }
        noticed = noticed || killed_at > 0 && pool.said("ended by signal 9").is_some();
        if noticed && replaced_after.is_none() && pool.said("ready after").is_some() {
            replaced_after = Some((time::monotonic_ns() - killed_at) / 1000);
        }
    });
    match replaced_after {
        Some(us) => say(&format!("its replacement was ready {} later", format_micros(us))),
        None => check(false, "the worker was not replaced"),
    }
    say(&figures(&hurt));
    check(hurt.lost <= 1, "more was lost than the request that the killed worker held");

    step("five reloads under load");
    let mut reloads = 0;
    let mut next = time::monotonic_ms();
    let reloaded = under_load(&socket, 2500, || {
        if reloads < 5 && time::monotonic_ms() >= next {
            let _ = process::kill(pool.pid(), libc::SIGHUP);
            reloads += 1;
            next = time::monotonic_ms() + 400;
        }
    });
    while let Some(line) = pool.said("reload done") {
        say(line.trim_start_matches("fcgiguard: "));
    }
    say(&figures(&reloaded));
    check(reloaded.lost == 0, "a reload lost requests");

    step("the manager is KILLed; the same command starts again at once");
    let orphans = pool.workers();
    let _ = process::kill(pool.pid(), libc::SIGKILL);
    let killed = time::monotonic_ns();
    pool.child.wait()?;
    let end = time::monotonic_ms() + 2000;
    while orphans.iter().any(|&pid| is_alive(pid)) && time::monotonic_ms() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let left = orphans.iter().filter(|&&pid| is_alive(pid)).count();
    say(&format!(
        "{left} of its {} workers left after {}",
        orphans.len(),
        format_micros((time::monotonic_ns() - killed) / 1000)
    ));
    check(left == 0, "workers outlived their manager");
    let again = time::monotonic_ns();
    let mut pool = Pool::start(&socket, app)?;
    let report = await_probe(&socket, |r| r.outcome == Outcome::Alive)?;
    say(&format!(
        "started on the same socket: {} after {}",
        report.verdict,
        format_micros((time::monotonic_ns() - again) / 1000)
    ));
    check(report.outcome == Outcome::Alive, "it did not come up again");

    step("TERM: the pool ends after the requests in flight");
    let mut told = false;
    let mut bench = load(&socket, 1000);
    while bench.step(2) {
        if !told && bench.figures.answered > 100 {
            told = true;
            bench.stop();
            let _ = process::kill(pool.pid(), libc::SIGTERM);
        }
    }
    let status = pool.child.wait()?;
    say(&format!(
        "{} requests before it, {} lost; exit {}",
        bench.figures.sent,
        bench.figures.lost,
        status.code().unwrap_or(-1)
    ));
    check(bench.figures.lost == 0 && status.success() && !socket.exists(), "the end was not clean");

    let total = calm.sent + hurt.sent + reloaded.sent + bench.figures.sent;
    let lost = calm.lost + hurt.lost + reloaded.lost + bench.figures.lost;
    println!(
        "\n{total} requests, {lost} lost ({} by the KILLed worker): {}",
        hurt.lost,
        if good { "all well" } else { "NOT well" }
    );
    Ok(good)
}
