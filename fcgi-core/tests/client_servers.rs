//! The client against php-fpm and libfcgi: bodies and answers of many megabytes, STDERR, a slow answer, an abort, reuse.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use fcgi_core::address::Address;
use fcgi_core::client::{Client, Piece};
use fcgi_core::Code;
use fcgi_core::Coded;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A server in a folder of its own; ended by its process id.
struct Server {
    folder: PathBuf,
    child: Child,
    address: Address,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("fcgi-real-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

/// None, where FCGIGUARD_ALLOW_SKIP allows it, if what the test needs is not installed.
fn missing(what: &str) -> Option<Server> {
    if std::env::var_os("FCGIGUARD_ALLOW_SKIP").is_none() {
        panic!("{what} is missing: run make deps, or set FCGIGUARD_ALLOW_SKIP=1");
    }
    eprintln!("skipped: {what} is missing");
    None
}

fn start(folder: PathBuf, mut command: Command) -> Option<Server> {
    let path = folder.join("s");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { folder, child, address: Address::Unix(path) };
    let end = Instant::now() + Duration::from_secs(20);
    while let Err(error) = Client::new().connect(&server.address) {
        assert!(Instant::now() < end, "the server did not start: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(server)
}

const SCRIPT: &str = r#"<?php
header('X-Method: ' . $_SERVER['REQUEST_METHOD']);
if (isset($_GET['code'])) http_response_code((int) $_GET['code']);
if (isset($_GET['say'])) error_log($_GET['say']);
if (isset($_GET['sleep'])) sleep((int) $_GET['sleep']);
if (isset($_GET['megabytes'])) {
    for ($n = 0; $n < $_GET['megabytes']; $n++) echo str_repeat(chr(65 + $n % 26), 1 << 20);
    exit;
}
if (isset($_GET['echo'])) { fpassthru(fopen('php://input', 'r')); exit; }
if (isset($_GET['ignore'])) { echo 'ignored'; exit; }
$body = file_get_contents('php://input');
echo strlen($body), ' ', md5($body), ' ', $_SERVER['EXTRA'] ?? '';
"#;

fn php_fpm() -> Option<Server> {
    let found = std::fs::read_dir("/usr/sbin").ok().into_iter().flatten().flatten().map(|entry| entry.path());
    let Some(fpm) = found.filter(|path| path.to_string_lossy().contains("/php-fpm")).max() else {
        return missing("php-fpm");
    };
    let folder = folder();
    let at = folder.display();
    // FPM refuses to be root without -R, and wants a user and group then.
    let user = if fcgi_core::sys::process::effective_uid() == 0 { "user = root\ngroup = root\n" } else { "" };
    let conf = format!(
        "[global]\nerror_log = {at}/error.log\ndaemonize = no\n[www]\n{user}listen = {at}/s\npm = static\n\
         pm.max_children = 2\nphp_admin_value[post_max_size] = 64M\nphp_admin_value[display_errors] = off\n"
    );
    std::fs::write(folder.join("conf"), conf).unwrap();
    std::fs::write(folder.join("app.php"), SCRIPT).unwrap();
    let mut command = Command::new(fpm);
    command.args(["-n", "-F", "-R", "-y"]).arg(folder.join("conf"));
    start(folder, command)
}

fn libfcgi() -> Option<Server> {
    let folder = folder();
    let app = folder.join("app");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/apps/app.c");
    let made =
        Command::new("cc").args(["-O1", "-o"]).arg(&app).arg(source).arg("-lfcgi").stderr(Stdio::null()).status();
    if !made.is_ok_and(|status| status.success()) {
        let _ = std::fs::remove_dir_all(&folder);
        return missing("cc or libfcgi-dev");
    }
    let mut command = Command::new(app);
    command.arg(folder.join("s"));
    start(folder, command)
}

impl Server {
    fn client(&self) -> Client {
        let mut client = Client::new();
        client.set("timeout", "60s").unwrap();
        client.connect(&self.address).unwrap();
        client
    }

    fn begin(&self, client: &mut Client, method: &str, query: &str, length: usize) {
        let script = self.folder.join("app.php");
        let length = if length > 0 { length.to_string() } else { String::new() };
        for (name, value) in [
            ("REQUEST_METHOD", method),
            ("QUERY_STRING", query),
            ("CONTENT_LENGTH", &length),
            ("CONTENT_TYPE", "application/octet-stream"),
            ("SCRIPT_FILENAME", &script.to_string_lossy()),
            ("REQUEST_URI", "/app.php"),
            ("EXTRA", "a = \u{e4}"),
        ] {
            client.param(name.as_bytes(), value.as_bytes()).unwrap();
        }
        client.begin().unwrap();
    }
}

fn rest(client: &mut Client) -> (Vec<u8>, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match client.read().unwrap() {
            Piece::Stdout(bytes) => out.extend_from_slice(bytes),
            Piece::Stderr(bytes) => err.extend_from_slice(bytes),
            Piece::Complete => return (out, String::from_utf8_lossy(&err).into_owned()),
        }
    }
}

#[test]
fn php_fpm_answers_a_get_and_its_error_stream_is_apart() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    server.begin(&mut client, "GET", "say=oh-dear&code=404", 0);
    client.end().unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.status, head.field(b"x-method")), (404, Some(&b"GET"[..])));
    let (body, said) = rest(&mut client);
    assert_eq!(String::from_utf8(body).unwrap(), "0 d41d8cd98f00b204e9800998ecf8427e a = \u{e4}");
    assert!(said.contains("oh-dear"), "{said}");
    assert_eq!((client.app_status(), client.protocol_status()), (Some(0), Some(0)));
}

#[test]
fn php_fpm_takes_16_megabytes_and_gives_32() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    let body = vec![b'z'; 16 << 20];
    server.begin(&mut client, "POST", "", body.len());
    assert_eq!(client.write(&body).unwrap(), body.len());
    client.end().unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    let found = String::from_utf8(rest(&mut client).0).unwrap();
    assert!(found.starts_with("16777216 "), "{found}");

    server.begin(&mut client, "GET", "megabytes=32", 0);
    client.end().unwrap();
    client.head().unwrap();
    let found = rest(&mut client).0;
    assert_eq!(found.len(), 32 << 20);
    assert!(found.chunks(1 << 20).enumerate().all(|(n, piece)| piece.iter().all(|&b| b == 65 + (n % 26) as u8)));
}

#[test]
fn php_fpm_echoes_while_the_body_is_written() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    let body: Vec<u8> = (0..4 << 20).map(|n| (n / 11) as u8).collect();
    server.begin(&mut client, "POST", "echo=1", body.len());
    assert_eq!(client.write(&body).unwrap(), body.len());
    client.end().unwrap();
    client.head().unwrap();
    assert!(rest(&mut client).0 == body);
}

#[test]
fn php_fpm_that_does_not_read_the_body_still_answers() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    client.set("keep_conn", "1").unwrap();
    for _ in 0..3 {
        server.begin(&mut client, "POST", "ignore=1", 8 << 20);
        client.write(&vec![1; 8 << 20]).unwrap();
        client.end().unwrap();
        client.head().unwrap();
        assert_eq!(rest(&mut client).0, b"ignored");
    }
}

#[test]
fn php_fpm_slow_is_a_timeout_and_the_next_request_is_served() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    client.set("timeout", "300ms").unwrap();
    server.begin(&mut client, "GET", "sleep=3", 0);
    client.end().unwrap();
    assert_eq!(client.head().unwrap_err().code(), Code::Timeout);
    assert!(!client.is_connected());
    client.set("timeout", "60s").unwrap();
    server.begin(&mut client, "GET", "", 0);
    client.end().unwrap();
    assert_eq!(client.head().unwrap().status, 200);
}

#[test]
fn php_fpm_aborted_in_the_middle_serves_the_next() {
    let Some(server) = php_fpm() else { return };
    let mut client = server.client();
    // More often than it has workers: an abort that did not free them would end in a timeout.
    for _ in 0..4 {
        server.begin(&mut client, "GET", "megabytes=512", 0);
        client.end().unwrap();
        assert!(matches!(client.read().unwrap(), Piece::Stdout(_)));
        client.abort().unwrap();
    }
    server.begin(&mut client, "GET", "", 0);
    client.end().unwrap();
    assert_eq!(client.head().unwrap().status, 200);
}

#[test]
fn php_fpm_and_libfcgi_serve_many_on_one_kept_connection() {
    for server in [php_fpm(), libfcgi()].into_iter().flatten() {
        let mut client = server.client();
        client.set("keep_conn", "1").unwrap();
        for n in 0..50 {
            let body = vec![b'q'; n * 3000];
            server.begin(&mut client, "POST", "", body.len());
            client.write(&body).unwrap();
            client.end().unwrap();
            assert_eq!(client.head().unwrap().status, 200);
            let found = String::from_utf8(rest(&mut client).0).unwrap();
            assert!(found.contains(&body.len().to_string()), "{found}");
            assert!(client.is_connected());
        }
    }
}

#[test]
fn libfcgi_takes_16_megabytes() {
    let Some(server) = libfcgi() else { return };
    let mut client = server.client();
    server.begin(&mut client, "POST", "", 16 << 20);
    client.write(&vec![b'z'; 16 << 20]).unwrap();
    client.end().unwrap();
    client.head().unwrap();
    let found = String::from_utf8(rest(&mut client).0).unwrap();
    assert!(found.ends_with("body=16777216\n"), "{found}");
}
