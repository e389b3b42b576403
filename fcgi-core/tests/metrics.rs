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
    policy.handle(9000, Event::Samples { workers: (0..3).map(|s| sample(s, s == 1)).collect(), queue: Some((4, 511)) });
    policy.handle(9000, Event::Exited { slot: 2, ended: Ended::Signal(11), served: 12 });
    carry_out(&mut policy, 9000);
    policy.handle(9500, Event::Reload { change: 1, reason: NASTY.into() });
    for now in 9501..9540 {
        carry_out(&mut policy, now);
    }
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
    assert_eq!(status.requests(), 12 + live);
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
