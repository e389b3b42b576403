//! `fcgiguard top`: a live view of pools over their control sockets. It looks as anybody could, through `status.json`; a
//! picture is plain lines, drawn over the last one on the terminal's second screen.

mod screen;

use crate::control;
use crate::flags::{parser, Flags};
use crate::EXIT_USAGE;
use fcgi_core::address::Address;
use fcgi_core::sys::time;
use fcgi_core::units::format_age_ms;
use screen::{Key, Screen};
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

const HELP: &str = "\
Usage: fcgiguard top [OPTIONS] CONTROL...

Shows pools and their workers, again and again: state, age, requests, what they are busy with and for how long, memory, the listen
queue, a reload in progress. CONTROL is the address that was given to `fcgiguard run --control`; several pools stand below each
other. Keys: q ends it, s sorts by the next column, the arrows scroll.

  --interval TIME   how often to look (default 1s)
  --once            one picture, and the end
  --plain           one line a pool and look, for logs; so it is also where the output is not a terminal
  --count N         end after so many looks
  --sort COLUMN     slot (default), age, requests, busy or memory; all but slot with the greatest first
  --timeout TIME    how long a manager has to answer (default 5s)
  -h, --help        this text

Exit code: 0, 1 if a manager did not answer the last look, 3 wrong use. NO_COLOR in the environment is respected.
";

/// What workers can be sorted by.
const COLUMNS: [&str; 5] = ["slot", "age", "requests", "busy", "memory"];

/// What is known of one control socket.
struct Source {
    name: String,
    address: Address,
    /// The last answer, or why there is none.
    seen: Result<Value, String>,
    at: u64,
    before: Option<Before>,
}

/// Requests at the look before, of the pool and of each worker by slot and pid, and when that was.
struct Before {
    at: u64,
    requests: i64,
    workers: HashMap<(i64, i64), i64>,
}

struct Wish {
    interval_ms: u64,
    timeout_ms: u64,
    count: u64,
    once: bool,
    plain: bool,
    sort: String,
}

pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut flags = Flags::about(HELP);
    let mut parser = parser(args);
    let mut sources = Vec::new();
    let terminal = std::io::stdout().is_terminal();
    let mut wish =
        Wish { interval_ms: 1000, timeout_ms: 5000, count: 0, once: false, plain: !terminal, sort: "slot".into() };
    while let Ok(Some(arg)) = parser.next() {
        match arg {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            lexopt::Arg::Long("interval") => wish.interval_ms = flags.duration("interval", &mut parser),
            lexopt::Arg::Long("timeout") => wish.timeout_ms = flags.duration("timeout", &mut parser),
            lexopt::Arg::Long("count") => wish.count = flags.count("count", &mut parser),
            lexopt::Arg::Long("once") => wish.once = true,
            lexopt::Arg::Long("plain") => wish.plain = true,
            lexopt::Arg::Long("sort") => {
                wish.sort = flags.text("sort", &mut parser);
                if !COLUMNS.contains(&wish.sort.as_str()) {
                    flags.fault(format!("--sort {:?}: expected slot, age, requests, busy or memory", wish.sort));
                }
            }
            lexopt::Arg::Value(value) => {
                let name = value.to_string_lossy().into_owned();
                match Address::parse(&name) {
                    Ok(address) => {
                        sources.push(Source { name, address, seen: Err(String::new()), at: 0, before: None });
                    }
                    Err(error) => flags.misplaced(error.to_string()),
                }
            }
            other => flags.unexpected(other),
        }
    }
    if sources.is_empty() {
        flags.missing("the control socket's address is missing (what `run --control` was given)");
    }
    if wish.interval_ms < 50 {
        flags.fault("--interval: at least 50ms");
    }
    if flags.report("top") {
        return ExitCode::from(EXIT_USAGE);
    }
    watch(&mut sources, &mut wish, terminal)
}

fn watch(sources: &mut [Source], wish: &mut Wish, terminal: bool) -> ExitCode {
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = match (!wish.once && !wish.plain).then(Screen::open).transpose() {
        Ok(screen) => screen,
        Err(error) => {
            eprintln!("fcgiguard top: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut looks, mut from) = (0, 0);
    let mut next = time::monotonic_ms();
    'looks: loop {
        for source in sources.iter_mut() {
            look(source, wish.timeout_ms);
        }
        looks += 1;
        // From look to look, not from answer to look; and without catching up.
        next = (next + wish.interval_ms).max(time::monotonic_ms());
        let Some(screen) = &mut screen else {
            let text = match wish.plain && !wish.once {
                true => sources.iter().map(plain_line).collect::<Vec<_>>().join("\n") + "\n",
                false => painted(picture(sources, wish), color),
            };
            let mut out = std::io::stdout().lock();
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                return ExitCode::FAILURE;
            }
            if wish.once || looks == wish.count {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(next.saturating_sub(time::monotonic_ms())));
            continue;
        };
        loop {
            if screen.draw(&picture(sources, wish), &mut from, &footer(wish), color).is_err() {
                return ExitCode::FAILURE;
            }
            if looks == wish.count {
                break 'looks;
            }
            match screen.wait(next) {
                None => break,
                Some(Key::End) => break 'looks,
                Some(Key::Sort) => {
                    let at = COLUMNS.iter().position(|column| *column == wish.sort).unwrap_or(0);
                    wish.sort = COLUMNS.get(at + 1).unwrap_or(&"slot").to_string();
                }
                Some(Key::Scroll(lines)) => from = from.saturating_add_signed(lines),
                Some(Key::Redraw) => {}
            }
        }
    }
    match sources.iter().all(|source| source.seen.is_ok()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn footer(wish: &Wish) -> String {
    let every = format_age_ms(wish.interval_ms);
    format!("q quit   s sort (by {})   arrows scroll   every {every}", wish.sort)
}

fn look(source: &mut Source, timeout_ms: u64) {
    if let Ok(seen) = &source.seen {
        let workers = list(seen, "workers").iter().map(|w| ((int(w, "slot"), int(w, "pid")), int(w, "requests")));
        let (at, requests) = (source.at, int(seen, "requests"));
        source.before = Some(Before { at, requests, workers: workers.collect() });
    }
    source.at = time::monotonic_ms();
    source.seen = control::status_json(&source.address, timeout_ms)
        .and_then(|text| serde_json::from_str(&text).map_err(|error| format!("not a status: {error}")));
}

fn int(value: &Value, name: &str) -> i64 {
    value.get(name).and_then(Value::as_i64).unwrap_or(0)
}

/// Text from elsewhere, without what a terminal would obey.
fn text(value: &Value, name: &str) -> String {
    tame(value.get(name).and_then(Value::as_str).unwrap_or(""))
}

fn tame(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn age(ms: i64) -> String {
    format_age_ms(u64::try_from(ms).unwrap_or(0))
}

/// Requests a second since the look before; None at the first one.
fn rate(source: &Source, now: i64, before: Option<i64>) -> Option<f64> {
    let seconds = source.at.saturating_sub(source.before.as_ref()?.at) as f64 / 1000.0;
    (seconds > 0.0).then(|| (now - before.unwrap_or(0)).max(0) as f64 / seconds)
}

fn pool_rate(source: &Source, seen: &Value) -> String {
    let before = source.before.as_ref().map(|before| before.requests);
    rate(source, int(seen, "requests"), before).map_or("-".into(), |rate| format!("{rate:.1}"))
}

fn queue(seen: &Value) -> String {
    match int(seen, "queue") {
        unknown if unknown < 0 => "unknown".into(),
        waiting => format!("{waiting}/{}", int(seen, "queue_limit")),
    }
}

fn ready_and_busy(seen: &Value) -> (usize, usize) {
    let workers = list(seen, "workers");
    let ready = workers.iter().filter(|w| w.get("phase").and_then(Value::as_str) == Some("ready")).count();
    (ready, workers.iter().filter(|w| int(w, "busy_ms") >= 0).count())
}

/// One look at one pool in `name=value` form.
fn plain_line(source: &Source) -> String {
    let seen = match &source.seen {
        Ok(seen) => seen,
        Err(why) => return format!("control={} error={:?}", source.name, tame(why)),
    };
    let (ready, busy) = ready_and_busy(seen);
    let longest = list(seen, "workers").iter().map(|w| int(w, "busy_ms")).max().unwrap_or(0).max(0);
    format!(
        "pool={} state={} generation={} ready={ready} target={} busy={busy} longest_ms={longest} queue={} requests={} rate={}",
        text(seen, "pool"),
        text(seen, "state"),
        int(seen, "generation"),
        int(seen, "target"),
        queue(seen),
        int(seen, "requests"),
        pool_rate(source, seen),
    )
}

/// A status in one line, and whether every worker that there should be is ready.
pub fn status_line(control: &str, address: &Address, json: &str) -> Result<(String, bool), String> {
    let seen: Value = serde_json::from_str(json).map_err(|error| format!("not a status: {error}"))?;
    let serves = matches!(text(&seen, "state").as_str(), "running" | "reloading");
    let ready = i64::try_from(ready_and_busy(&seen).0).unwrap_or(i64::MAX);
    let all = serves && ready >= int(&seen, "target");
    let source = Source { name: control.to_owned(), address: address.clone(), seen: Ok(seen), at: 0, before: None };
    let line = plain_line(&source);
    // Of one look there is no rate.
    Ok((line.trim_end_matches(" rate=-").to_owned(), all))
}

/// A line, and how it is meant: painting adds no width, so that the text can be cut first.
type Line = (Mood, String);

/// How a line is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Plain,
    Good,
    Changing,
    Bad,
    Busy,
    Head,
    Faint,
}

/// Everything there is to say.
fn picture(sources: &[Source], wish: &Wish) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for source in sources {
        if !lines.is_empty() {
            lines.push((Mood::Plain, String::new()));
        }
        pool_lines(source, wish, &mut lines);
    }
    lines
}

/// The lines as they are written where no screen is drawn.
fn painted(lines: Vec<Line>, color: bool) -> String {
    lines.into_iter().map(|(mood, line)| if color { screen::paint(mood, &line) } else { line } + "\n").collect()
}

fn pool_lines(source: &Source, wish: &Wish, lines: &mut Vec<Line>) {
    let seen = match &source.seen {
        Ok(seen) => seen,
        Err(why) => return lines.push((Mood::Bad, format!("{}: {}", source.name, tame(why)))),
    };
    let state = text(seen, "state");
    let mood = match state.as_str() {
        "running" => Mood::Good,
        "starting" | "reloading" => Mood::Changing,
        _ => Mood::Bad,
    };
    let (ready, busy) = ready_and_busy(seen);
    let listen: Vec<String> = list(seen, "listen").iter().filter_map(Value::as_str).map(tame).collect();
    let target = int(seen, "target");
    lines.push((mood, format!("{}: {state}, generation {}", text(seen, "pool"), int(seen, "generation"))));
    lines.push((
        Mood::Plain,
        format!(
            "{ready} of {target} ready, {busy} busy; queue {}; {} requests, {} a second; {}",
            queue(seen),
            int(seen, "requests"),
            pool_rate(source, seen),
            listen.join(", ")
        ),
    ));
    let counters = seen.get("counters").unwrap_or(&Value::Null);
    let of = |name: &str| int(counters, name);
    lines.push((
        Mood::Plain,
        format!(
            "started {}, crashed {}, failed starts {}, recycled {}, killed {}; reloads {} good, {} given up",
            of("spawned"),
            of("crashed"),
            of("failed_starts"),
            of("recycled"),
            of("killed"),
            of("reloads_ok"),
            of("reloads_failed")
        ),
    ));
    if state == "reloading" {
        let generation = int(seen, "generation");
        let is_new = |w: &&Value| int(w, "generation") == generation && text(w, "phase") == "ready";
        let new = list(seen, "workers").iter().filter(is_new).count();
        lines.push((Mood::Changing, format!("reload in progress: {new} of {target} of generation {generation} ready")));
    }
    if int(seen, "next_try_ms") > 0 {
        let (failed, next) = (int(seen, "failed_starts_in_a_row"), age(int(seen, "next_try_ms")));
        lines.push((Mood::Bad, format!("{failed} starts failed in a row, next try in {next}")));
    }
    if let Some(reload) = seen.get("last_reload").filter(|reload| reload.is_object()) {
        let good = reload.get("ok").and_then(Value::as_bool).unwrap_or(false);
        let (ago, reason) = (age(int(reload, "age_ms")), text(reload, "reason"));
        let line = format!("last reload {ago} ago ({reason}): {}", text(reload, "outcome"));
        lines.push((if good { Mood::Plain } else { Mood::Bad }, line));
    }
    lines.push((
        Mood::Head,
        format!(
            "{:>5} {:>8} {:>5} {:<9} {:>7} {:>10} {:>8} {:>8} {:>9}  {:<10}",
            "SLOT", "PID", "GEN", "PHASE", "AGE", "REQUESTS", "PER SEC", "BUSY FOR", "MEMORY", "COOPERATES"
        ),
    ));
    let mut workers: Vec<&Value> = list(seen, "workers").iter().collect();
    let column = match wish.sort.as_str() {
        "age" => "age_ms",
        "requests" => "requests",
        "busy" => "busy_ms",
        "memory" => "memory",
        _ => "",
    };
    workers.sort_by_key(|w| (-int(w, column), int(w, "slot")));
    for worker in workers {
        lines.push(worker_line(source, worker));
    }
}

fn worker_line(source: &Source, w: &Value) -> Line {
    let key = (int(w, "slot"), int(w, "pid"));
    let before = source.before.as_ref().and_then(|before| before.workers.get(&key).copied());
    let rate = rate(source, int(w, "requests"), before).map_or("-".into(), |rate| format!("{rate:.1}"));
    let busy = if int(w, "busy_ms") >= 0 { age(int(w, "busy_ms")) } else { "-".into() };
    let memory = match int(w, "memory") {
        0 => "-".into(),
        bytes => format!("{:.1} MB", bytes as f64 / 1e6),
    };
    let phase = text(w, "phase");
    let why = if w.get("why_leaving").is_some() { text(w, "why_leaving") } else { text(w, "to_replace") };
    let line = format!(
        "{:>5} {:>8} {:>5} {phase:<9} {:>7} {:>10} {rate:>8} {busy:>8} {memory:>9}  {:<10} {why}",
        key.0,
        key.1,
        int(w, "generation"),
        age(int(w, "age_ms")),
        int(w, "requests"),
        text(w, "cooperates"),
    );
    let code = match phase.as_str() {
        "ready" if int(w, "busy_ms") >= 0 => Mood::Busy,
        "ready" => Mood::Plain,
        "killed" => Mood::Bad,
        _ => Mood::Changing,
    };
    (code, line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Source {
        let seen = serde_json::from_str(json).map_err(|error| error.to_string());
        let address = Address::parse("unix:/c").unwrap();
        Source {
            name: "unix:/c".into(),
            address,
            seen,
            at: 3000,
            before: Some(Before { at: 1000, requests: 100, workers: HashMap::new() }),
        }
    }

    fn wish(sort: &str) -> Wish {
        Wish { interval_ms: 1000, timeout_ms: 1000, count: 0, once: true, plain: false, sort: sort.into() }
    }

    const STATUS: &str = r#"{"pool":"shop","state":"reloading","listen":["unix:/s"],"generation":2,"target":2,"requests":130,
        "queue":3,"queue_limit":511,"failed_starts_in_a_row":0,"next_try_ms":0,"counters":{"spawned":3},"last_reload":null,
        "workers":[{"slot":0,"pid":11,"generation":1,"phase":"ready","cooperates":"library","age_ms":90000,"requests":90,
        "busy_ms":-1,"memory":0},{"slot":1,"pid":12,"generation":2,"phase":"ready","cooperates":"observed","age_ms":500,
        "requests":40,"busy_ms":8500,"memory":21000000,"to_replace":"max_memory exceeded"}]}"#;

    #[test]
    fn a_picture_shows_the_pool_its_reload_and_who_is_busy() {
        let text = painted(picture(&[source(STATUS)], &wish("busy")), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "shop: reloading, generation 2");
        assert!(lines[1].contains("2 of 2 ready, 1 busy; queue 3/511; 130 requests, 15.0 a second; unix:/s"), "{text}");
        assert!(text.contains("reload in progress: 1 of 2 of generation 2 ready"), "{text}");
        let first: Vec<&str> = lines[5].split_whitespace().collect();
        assert_eq!(first[..8], ["1", "12", "2", "ready", "0.5s", "40", "20.0", "8.5s"], "the busy one first: {text}");
        assert!(lines[5].ends_with("max_memory exceeded"), "{text}");
    }

    #[test]
    fn a_line_for_logs_says_it_all_and_errors_too() {
        let line = plain_line(&source(STATUS));
        assert!(
            line.starts_with("pool=shop state=reloading generation=2 ready=2 target=2 busy=1 longest_ms=8500"),
            "{line}"
        );
        assert!(line.ends_with("queue=3/511 requests=130 rate=15.0"), "{line}");
        assert!(plain_line(&source("oops")).starts_with("control=unix:/c error="));
    }

    #[test]
    fn one_line_says_whether_all_are_ready() {
        let address = Address::parse("unix:/c").unwrap();
        let look = |json: &str| status_line("unix:/c", &address, json).unwrap();
        let (line, all) = look(STATUS);
        assert!(all && line.ends_with("queue=3/511 requests=130"), "{line}");
        assert!(!look(&STATUS.replace("reloading", "degraded")).1);
        assert!(!look(&STATUS.replace("\"target\":2", "\"target\":3")).1);
        assert!(!look(&STATUS.replace("\"phase\":\"ready\"", "\"phase\":\"starting\"")).1);
        assert!(status_line("unix:/c", &address, "oops").is_err());
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_command_the_terminal() {
        let evil = STATUS.replace("shop", "\\u001b[2Jshop").replace("unix:/s", "\\u0007\\u009b1m");
        let text = painted(picture(&[source(&evil)], &wish("slot")), false);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    }
}
