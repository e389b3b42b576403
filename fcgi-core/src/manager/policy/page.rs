//! A pool's status as a page for a browser, to be served through the user's own web server. One file: no script, nothing
//! fetched from anywhere, readable on a phone, in light and dark; it fetches itself again every few seconds.

use super::metrics::Shown;
use super::status::{PoolStatus, WorkerStatus};
use super::Phase;
use crate::manager::action::Slot;
use crate::units::format_age_ms;
use std::fmt::Write;

/// How often the browser asks again (seconds).
const REFRESH_S: u32 = 5;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--good:#2a7d3f;--warn:#a86400;--bad:#c0392b}\
@media(prefers-color-scheme:dark){:root{--good:#5fc27e;--warn:#e0a64a;--bad:#f0776a}}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:60rem}\
h1{font-size:1.4rem;margin:1.5rem 0 .25rem;overflow-wrap:anywhere}p{margin:.25rem 0;overflow-wrap:anywhere}\
.state{font-weight:600}.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.5rem;margin:1rem 0}\
dl div{border:1px solid var(--line);border-radius:.4rem;padding:.3rem .6rem}\
dt{font-size:.8rem;opacity:.75}dd{margin:0;font-variant-numeric:tabular-nums}\
.table{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}\
th{font-size:.8rem;opacity:.75;font-weight:600}.text{text-align:left}footer{margin-top:2rem;font-size:.8rem;opacity:.75}\
@media(max-width:30rem){body{padding:.6rem}h1{margin-top:.5rem}dl{grid-template-columns:repeat(3,1fr);gap:.3rem}\
dl div{padding:.15rem .4rem}dt,dd{overflow-wrap:anywhere}th,td{padding:.25rem .35rem}td{font-size:.9rem}}";

impl PoolStatus {
    /// One page. Times are ages at `now`; `cooperation` says how a worker works with the manager.
    pub fn to_html(
        &self,
        name: &str,
        addresses: &[String],
        now: u64,
        cooperation: impl Fn(Slot) -> &'static str,
    ) -> String {
        render(&[(Shown { name, addresses, status: self }, &cooperation)], now)
    }
}

/// Several pools on one page.
pub fn render(pools: &[(Shown<'_>, &dyn Fn(Slot) -> &'static str)], now: u64) -> String {
    let names: Vec<String> = pools.iter().map(|(pool, _)| escape(pool.name)).collect();
    let title = names.join(", ");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_S}\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>{title}: fcgiguard</title>\n<style>{STYLE}</style>\n"
    );
    for (pool, cooperation) in pools {
        one_pool(&mut page, pool, cooperation, now);
    }
    // Writing to a String cannot fail.
    let _ = writeln!(page, "<footer>fcgiguard {}; asks again every {REFRESH_S} s</footer>", env!("CARGO_PKG_VERSION"));
    page.push_str("</html>\n");
    page
}

fn one_pool(page: &mut String, pool: &Shown<'_>, cooperation: &dyn Fn(Slot) -> &'static str, now: u64) {
    let s = pool.status;
    let mood = match s.state {
        "running" => "good",
        "starting" | "reloading" => "warn",
        _ => "bad",
    };
    let _ = writeln!(page, "<h1>{}</h1>", escape(pool.name));
    let _ = writeln!(
        page,
        "<p><span class=\"state {mood}\">{}</span>, listening on {}</p>",
        s.state,
        escape(&pool.addresses.join(", "))
    );
    if s.next_try > now {
        let wait = format_age_ms(s.next_try - now);
        let _ = writeln!(page, "<p class=\"bad\">{} starts failed in a row; next try in {wait}</p>", s.failures);
    }
    if let Some(reload) = &s.last_reload {
        let (class, age) =
            (if reload.ok { "" } else { " class=\"bad\"" }, format_age_ms(now.saturating_sub(reload.at)));
        let (reason, outcome) = (escape(&reload.reason), escape(&reload.outcome));
        let _ = writeln!(page, "<p{class}>Last reload {age} ago ({reason}): {outcome}</p>");
    }
    let busy = s.workers.iter().filter(|w| w.busy).count();
    let c = &s.counters;
    page.push_str("<dl>\n");
    for (name, value) in [
        ("ready", format!("{} of {}", s.count(Phase::Ready), s.target)),
        ("busy", busy.to_string()),
        ("queue", s.queue.map_or("unknown".to_owned(), |(waiting, limit)| format!("{waiting} of {limit}"))),
        ("requests", s.requests().to_string()),
        ("generation", s.generation.to_string()),
        ("started", c.spawned.to_string()),
        ("crashed", c.crashed.to_string()),
        ("failed starts", c.failed_starts.to_string()),
        ("recycled", c.recycled.to_string()),
        ("killed", c.killed.to_string()),
        ("reloads", format!("{}, {} given up", c.reloads_ok, c.reloads_failed)),
        ("upgrades", c.upgrades.to_string()),
    ] {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    page.push_str("</dl>\n<div class=\"table\"><table>\n<tr>");
    // What is looked for first stands first: a phone shows some five columns before it has to be moved.
    for head in ["slot", "pid"] {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("<th class=\"text\">phase</th>");
    for head in ["busy for", "requests", "age", "memory", "generation"] {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("<th class=\"text\">cooperates</th><th class=\"text\"></th></tr>\n");
    for worker in &s.workers {
        one_worker(page, worker, cooperation(worker.slot), now);
    }
    page.push_str("</table></div>\n");
}

fn one_worker(page: &mut String, w: &WorkerStatus, cooperates: &str, now: u64) {
    let class = match w.phase {
        Phase::Ready => "good",
        Phase::Killed => "bad",
        Phase::Starting | Phase::Leaving => "warn",
    };
    let busy = if w.busy { format_age_ms(now.saturating_sub(w.busy_since)) } else { String::new() };
    let memory = if w.memory > 0 { format!("{:.1} MB", w.memory as f64 / 1e6) } else { String::new() };
    let why = w.to_replace.filter(|_| w.why_leaving.is_empty()).unwrap_or(w.why_leaving);
    let _ = writeln!(
        page,
        "<tr><td>{}</td><td>{}</td><td class=\"text {class}\">{}</td><td>{busy}</td><td>{}</td><td>{}</td>\
         <td>{memory}</td><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>",
        w.slot,
        w.pid,
        w.phase.name(),
        w.requests,
        format_age_ms(now.saturating_sub(w.started_at)),
        w.generation,
        escape(cooperates),
        escape(why)
    );
}

/// For text and for quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
