//! What the status says to a scraper and to a browser: promtool and a real Prometheus read it (Debian's package
//! `prometheus`; without it those two tests say so and look at nothing), and nothing in it can break out of its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use fcgi_core::manager::action::{Action, Ended, Event, ReadyHow, Sample};
use fcgi_core::manager::options::PoolOptions;
use fcgi_core::manager::policy::metrics::{render, Format, Shown};
use fcgi_core::manager::policy::status::PoolStatus;
use fcgi_core::manager::policy::Policy;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NASTY: &str = "a\"b\\c\nd<script>alert('1')</script>&";

/// A pool that has lived: busy, reloaded, crashed, with a queue.
fn lived() -> PoolStatus {
    let mut options = PoolOptions::default();
    options.set("workers", "3").unwrap();
    let mut policy = Policy::new(&options, 1);
    let carry_out = |policy: &mut Policy, now: u64| {
        let mut started = Vec::new();
        while let Some(action) = policy.next_action() {
            if let Action::Spawn { slot, .. } = action {
                policy.handle(now, Event::Spawned { slot, pid: 100 + slot as i32 });
                started.push(slot);
            }
        }
        for slot in started {
            policy.handle(now, Event::Ready { slot, how: ReadyHow::Said });
        }
    };
    policy.handle(1000, Event::Start);
    carry_out(&mut policy, 1000);
    let sample =
        |slot, busy| Sample { slot, busy, busy_since: 1500, deadline: 0, requests: 10, memory: Some(12_000_000) };
    policy.handle(8000, Event::Samples { workers: (0..3).map(|s| sample(s, s == 1)).collect(), queue: Some((4, 511)) });
    policy.handle(8000, Event::Exited { slot: 2, ended: Ended::Signal(11), served: 12 });
    carry_out(&mut policy, 8000);
    policy.handle(8500, Event::Reload { change: 1, reason: NASTY.into() });
    for now in 8501..8540 {
        carry_out(&mut policy, now);
    }
    for (slot, served) in [(0, 10), (2, 0)] {
        policy.handle(9000, Event::Exited { slot, ended: Ended::Code(0), served });
    }
    // The reload is done: the last of the old ones is at its long request.
    policy.handle(9600, Event::Samples { workers: vec![sample(1, true)], queue: Some((4, 511)) });
    policy.status()
}

fn text(format: Format) -> String {
    let status = lived();
    let mut fresh = Policy::new(&PoolOptions::default(), 1);
    fresh.handle(0, Event::Start);
    let (addresses, none) = (vec!["unix:/run/a.sock".to_owned(), NASTY.to_owned()], Vec::new());
    let first = Shown { name: NASTY, addresses: &addresses, status: &status };
    let second = Shown { name: "fresh", addresses: &none, status: &fresh.status() };
    render(format, &[first, second], 10_000)
}

#[test]
fn counts_what_was_served_by_workers_that_live_and_that_have_gone() {
    let status = lived();
    let live: u64 = status.workers.iter().map(|w| w.requests).sum();
    assert_eq!(status.requests(), 12 + 10 + live);
    let text = status.to_metrics(Format::OpenMetrics, "p", &[], 10_000);
    assert!(text.contains(&format!("fcgiguard_requests_total{{pool=\"p\"}} {}\n", status.requests())), "{text}");
    assert!(text.contains("fcgiguard_workers_crashed_total{pool=\"p\"} 1\n"), "{text}");
    assert!(text.contains("fcgiguard_listen_queue_waiting{pool=\"p\"} 4\n"), "{text}");
    assert!(text.contains("fcgiguard_longest_request_seconds{pool=\"p\"} 8.5\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn a_scraper_gets_the_format_that_it_asks_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::for_accept(prometheus), Format::OpenMetrics);
    assert_eq!(Format::for_accept("*/*"), Format::Prometheus);
    assert_eq!(Format::for_accept(""), Format::Prometheus);
    let versions = [
        (Format::OpenMetrics, "application/openmetrics-text; version=1.0.0;"),
        (Format::Prometheus, "text/plain; version=0.0.4;"),
    ];
    for (format, version) in versions {
        assert!(format.content_type().starts_with(version) && format.content_type().ends_with("charset=utf-8"));
    }
}

#[test]
fn promtool_has_nothing_to_say_about_the_text() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        return println!("promtool is not installed: nothing checked");
    };
    promtool.stdin.take().unwrap().write_all(text(Format::Prometheus).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{}", text(Format::Prometheus));
}

/// Ends the process at the end of the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Serves the metrics over HTTP as a web server in front of the control socket would; returns the port.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head: Vec<String> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let accept = head.iter().find_map(|line| line.strip_prefix("Accept: ")).unwrap_or("");
            let format = Format::for_accept(accept);
            assert_eq!(format, Format::OpenMetrics, "what Prometheus prefers");
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nConnection: close\r\n\r\n{}",
                format.content_type(),
                text(format)
            );
        }
    });
    port
}

#[test]
fn a_real_prometheus_scrapes_it() {
    let folder = std::env::temp_dir().join(format!("fcgiguard-metrics-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("prometheus.yml");
    let target = serve();
    let yaml = format!(
        "scrape_configs:\n  - job_name: guard\n    scrape_interval: 200ms\n    scrape_timeout: 200ms\n    \
         static_configs:\n      - targets: ['127.0.0.1:{target}']\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        std::fs::remove_dir_all(&folder).unwrap();
        return println!("prometheus is not installed: nothing checked");
    };
    let server = Server(child);
    let hung = Instant::now() + Duration::from_secs(60);
    let answer = loop {
        let answer = get(port, "/api/v1/query?query=fcgiguard_requests_total").unwrap_or_default();
        if answer.contains("fresh") || Instant::now() > hung {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let up = get(port, "/api/v1/query?query=up").unwrap_or_default();
    let targets = get(port, "/api/v1/targets").unwrap_or_default();
    drop(server);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(answer.contains("\"pool\":\"fresh\""), "{answer}\n{up}\n{targets}");
    assert!(up.contains(",\"1\"]"), "{up}\n{targets}");
}

#[test]
fn nothing_in_the_page_can_break_out_of_its_place() {
    let page = lived().to_html(NASTY, &[NASTY.to_owned()], 10_000, |_| "library");
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is fetched from anywhere");
    assert!(page.contains("<td class=\"text good\">ready</td>") && page.contains("8.5s"), "{page}");
}

#[test]
fn the_json_says_of_each_worker_and_of_the_pool_what_there_is() {
    let json =
        lived().to_json("p", &["a".to_owned(), "b".to_owned()], 10_000, |slot| ["library", "line"][slot as usize % 2]);
    let pool = "{\"pool\":\"p\",\"state\":\"running\",\"listen\":[\"a\",\"b\"],\"generation\":2,\"target\":3,\"requests\":32,\
                \"queue\":4,\"queue_limit\":511,\"failed_starts_in_a_row\":0,\"next_try_ms\":0,\"counters\":{\"spawned\":7,\
                \"ready\":7,\"exited\":3,\"failed_starts\":0,\"crashed\":1,\"recycled\":0,\"killed\":0,\"reloads_ok\":1,\
                \"reloads_failed\":0,\"upgrades\":0},\"last_reload\":{\"age_ms\":400,";
    assert!(json.starts_with(pool), "{json}");
    let busy =
        "{\"slot\":1,\"pid\":101,\"generation\":1,\"phase\":\"leaving\",\"cooperates\":\"line\",\"ready\":\"said\",\
                \"age_ms\":9000,\"requests\":10,\"busy_ms\":8500,\"memory\":12000000,\
                \"why_leaving\":\"replaced by a newer generation\"}";
    assert!(json.contains(busy), "{json}");
    let idle =
        "{\"slot\":5,\"pid\":105,\"generation\":2,\"phase\":\"ready\",\"cooperates\":\"line\",\"ready\":\"said\",\
                \"age_ms\":1498,\"requests\":0,\"busy_ms\":-1,\"memory\":0}]}";
    assert!(json.ends_with(idle), "{json}");
}

/// A pool whose last reload failed and whose starts do: braked, one worker alive by time alone.
fn troubled() -> Policy {
    let mut options = PoolOptions::default();
    for (name, value) in [("workers", "2"), ("restart_delay", "3s")] {
        options.set(name, value).unwrap();
    }
    let mut policy = Policy::new(&options, 1);
    policy.handle(1000, Event::Start);
    assert_eq!(policy.status().state, "starting");
    policy.handle(1000, Event::Ready { slot: 0, how: ReadyHow::Alive });
    assert_eq!(policy.status().state, "starting", "one is still missing");
    policy.handle(1000, Event::Ready { slot: 1, how: ReadyHow::Said });
    assert_eq!(policy.status().state, "running");
    policy.handle(5000, Event::Reload { change: 1, reason: "test".to_owned() });
    assert_eq!(policy.status().state, "reloading");
    while policy.next_action().is_some() {}
    policy.handle(5000, Event::Exited { slot: 2, ended: Ended::Code(1), served: 0 });
    policy
}

#[test]
fn a_brake_and_a_failed_reload_are_shown_with_their_times() {
    let policy = troubled();
    let status = policy.status();
    assert_eq!((status.state, status.next_try, status.failures), ("degraded", 8000, 1));
    let json = status.to_json("p", &[], 5500, |_| "library");
    assert!(json.contains("\"failed_starts_in_a_row\":1,\"next_try_ms\":2500,"), "{json}");
    assert!(json.contains("\"ok\":false") && json.contains("\"ready\":\"alive\""), "{json}");
    let late = status.to_json("p", &[], 8000, |_| "library");
    assert!(late.contains("\"next_try_ms\":0,") && late.contains("\"queue\":-1,\"queue_limit\":-1,"), "{late}");
    let page = status.to_html("p", &[], 5500, |_| "library");
    assert!(page.contains("<p class=\"bad\">1 starts failed in a row; next try in 2.5s</p>"), "{page}");
    assert!(page.contains("<span class=\"state bad\">degraded</span>"), "{page}");
    assert!(page.contains("<p class=\"bad\">Last reload 0.5s ago (test): "), "{page}");
    assert!(!status.to_html("p", &[], 8000, |_| "library").contains("next try"), "it is tried now");
    let text = status.to_metrics(Format::Prometheus, "p", &[], 5500);
    assert!(text.contains("fcgiguard_next_start_seconds{pool=\"p\"} 2.5\n"), "{text}");
    assert!(text.contains("fcgiguard_last_reload_success{pool=\"p\"} 0\n"), "{text}");
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "the older format has neither: {text}");
}

#[test]
fn a_pool_that_starts_is_shown_as_on_its_way() {
    let mut fresh = Policy::new(&PoolOptions::default(), 1);
    fresh.handle(0, Event::Start);
    let page = fresh.status().to_html("p", &[], 0, |_| "library");
    assert!(page.contains("<span class=\"state warn\">starting</span>"), "{page}");
}

#[test]
fn the_state_names_the_last_thing_that_matters() {
    let mut policy = troubled();
    policy.handle(9000, Event::Stop { change: 2 });
    assert_eq!(policy.status().state, "stopping");
    for slot in 0..3 {
        policy.handle(9000, Event::Exited { slot, ended: Ended::Code(0), served: 0 });
    }
    assert_eq!((policy.status().state, policy.status().workers.len()), ("ended", 0));
}

#[test]
fn the_page_shows_a_row_for_each_worker() {
    let page = lived().to_html("p", &["a".to_owned(), "b".to_owned()], 10_000, |_| "library");
    let rows = "<tr><td>1</td><td>101</td><td class=\"text warn\">leaving</td><td>8.5s</td><td>10</td><td>9.0s</td>\
                <td>12.0 MB</td><td>1</td><td class=\"text\">library</td>\
                <td class=\"text\">replaced by a newer generation</td></tr>\n\
                <tr><td>3</td><td>103</td><td class=\"text good\">ready</td><td></td><td>0</td><td>1.5s</td><td></td>\
                <td>2</td><td class=\"text\">library</td><td class=\"text\"></td></tr>\n";
    assert!(page.contains(rows), "{page}");
    assert!(page.contains("<span class=\"state good\">running</span>, listening on a, b</p>"), "{page}");
    assert!(page.contains("<p>Last reload 0.4s ago ("), "{page}");
    for (name, value) in [("ready", "3 of 3"), ("busy", "1"), ("queue", "4 of 511"), ("requests", "32")] {
        assert!(page.contains(&format!("<div><dt>{name}</dt><dd>{value}</dd></div>")), "{name} {page}");
    }
}

#[test]
fn each_gauge_has_its_own_number() {
    let text = lived().to_metrics(Format::OpenMetrics, "p", &["a".to_owned()], 10_000);
    for line in [
        "# TYPE fcgiguard_pool info\nfcgiguard_pool_info{pool=\"p\",listen=\"a\"} 1\n",
        "fcgiguard_pool_state{pool=\"p\",fcgiguard_pool_state=\"running\"} 1\n",
        "fcgiguard_pool_state{pool=\"p\",fcgiguard_pool_state=\"degraded\"} 0\n",
        "fcgiguard_workers{pool=\"p\",phase=\"ready\"} 3\n",
        "fcgiguard_workers{pool=\"p\",phase=\"leaving\"} 1\n",
        "fcgiguard_workers{pool=\"p\",phase=\"killed\"} 0\n",
        "fcgiguard_listen_queue_limit{pool=\"p\"} 511\n",
        "fcgiguard_last_reload_success{pool=\"p\"} 1\n",
        "# UNIT fcgiguard_last_reload_age_seconds seconds\nfcgiguard_last_reload_age_seconds{pool=\"p\"} 0.4\n",
        "fcgiguard_workers_busy{pool=\"p\"} 1\n",
        "fcgiguard_oldest_worker_seconds{pool=\"p\"} 9\n",
        "fcgiguard_workers_memory_bytes{pool=\"p\"} 12000000\n",
        "fcgiguard_generation{pool=\"p\"} 2\n",
        "fcgiguard_next_start_seconds{pool=\"p\"} 0\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let older = lived().to_metrics(Format::Prometheus, "p", &["a".to_owned()], 10_000);
    for line in [
        "# TYPE fcgiguard_pool_info gauge\n",
        "# TYPE fcgiguard_pool_state gauge\n",
        "# TYPE fcgiguard_requests_total counter\n",
    ] {
        assert!(older.contains(line), "{line} in {older}");
    }
}
