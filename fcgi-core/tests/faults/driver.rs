//! Plays every scene in a process and a folder of its own, two at a time, each with a deadline, and looks for what they leave behind.

use fcgi_core::sys::fault;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longer than every scene takes by far, on a machine that does much else: who is not done then hangs.
const DEADLINE: Duration = Duration::from_secs(40);

struct Played {
    text: String,
    wrong: Vec<String>,
}

pub fn run(long: bool, only: Option<&str>) -> i32 {
    let begun = Instant::now();
    // Orphans come to us, so that none is overlooked.
    // SAFETY: prctl with numbers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let mut plan = Vec::new();
    let mut failures = Vec::new();
    for (scene, _) in super::scenes::ALL.iter().filter(|(name, _)| only.is_none_or(|o| o == *name)) {
        let counted = play(&[scene]);
        for wrong in &counted.wrong {
            println!("FAIL faults play {scene}   (without a fault)\n     {wrong}");
            failures.push(format!("{scene}: {wrong}"));
        }
        let mut calls = 0;
        for line in counted.text.lines().filter_map(|line| line.strip_prefix("count ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let &[role, call, count] = words.as_slice() else { continue };
            let errors = fault::CALLS[fault::number(call).unwrap()].1;
            let count: u32 = count.parse().unwrap();
            calls += count;
            for (at, nth) in chosen(count, long).into_iter().enumerate() {
                // Short: a different error each time; long: all.
                let these = if long { errors.to_vec() } else { vec![errors[at % errors.len()]] };
                plan.extend(these.into_iter().map(|errno| (*scene, role.to_lowercase(), call.to_owned(), nth, errno)));
            }
        }
        println!("{scene}: {calls} calls counted");
    }
    let (next, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shared = Mutex::new(failures);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| loop {
                let Some((scene, role, call, nth, errno)) = plan.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let (nth, errno) = (nth.to_string(), errno.to_string());
                let played = play(&[scene, role, call, &nth, &errno]);
                hits.fetch_add(usize::from(played.text.lines().any(|l| l.starts_with("hit "))), Ordering::Relaxed);
                let mut failures = shared.lock().unwrap();
                for wrong in played.wrong {
                    let reason = std::io::Error::from_raw_os_error(errno.parse().unwrap());
                    println!("FAIL faults play {scene} {role} '{call}' {nth} {errno}   ({reason})\n     {wrong}");
                    failures.push(format!("{scene} {role} {call} {nth} {errno}: {wrong}"));
                }
            });
        }
    });
    let failures = shared.into_inner().unwrap();
    println!(
        "{} faults planned, {} struck, {} findings, {} s",
        plan.len(),
        hits.into_inner(),
        failures.len(),
        begun.elapsed().as_secs()
    );
    let hurt = failures.len().min(plan.len());
    println!("faults: {} passed, {hurt} failed", plan.len() - hurt);
    i32::from(!failures.is_empty())
}

/// Which of `count` calls are hurt: long all of the first 24 and then ever fewer (what follows repeats), short the first and the last.
fn chosen(count: u32, long: bool) -> Vec<u32> {
    let mut these: Vec<u32> = if long {
        let mut at = 24;
        let mut these: Vec<u32> = (0..count.min(24)).collect();
        while at < count {
            these.push(at);
            at += at / 4;
        }
        these
    } else {
        vec![0, count - 1]
    };
    these.dedup();
    these
}

fn folder() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("fcgi-faults-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).expect("a folder");
    path
}

fn play(words: &[&str]) -> Played {
    let folder = folder();
    let log = std::fs::File::create(folder.join("stderr")).expect("a file");
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .arg("play")
        .args(words)
        .current_dir(&folder)
        .env("FCGIGUARD_FAULT_SCENE", "1")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("this program again");
    let group = child.id() as i32;
    let mut out = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut wrong = Vec::new();
    let until = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() > until {
            wrong.push("hangs".to_owned());
            break None;
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    // What is still there of its group a moment later was left behind.
    let until = Instant::now() + Duration::from_secs(if status.is_some() { 5 } else { 0 });
    // SAFETY: a signal to the group of a child of ours; 0 only asks.
    while unsafe { libc::kill(-group, 0) } == 0 {
        // SAFETY: reaps only members of that group.
        while unsafe { libc::waitpid(-group, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        if Instant::now() > until {
            if status.is_some() {
                wrong.push("a process is left over".to_owned());
            }
            // SAFETY: as above.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    let text = reader.join().expect("the reader");
    let errors = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    wrong.extend(text.lines().filter_map(|line| line.strip_prefix("WRONG ")).map(str::to_owned));
    wrong.extend(errors.lines().filter_map(|line| line.strip_prefix("WRONG ")).map(str::to_owned));
    if errors.contains("panicked at") {
        wrong.push(format!("a panic: {}", errors.lines().find(|l| l.contains("panicked at")).unwrap_or_default()));
    }
    if let (Some(status), true) = (status, wrong.is_empty()) {
        if !status.success() {
            wrong.push(format!("ended with {status}"));
        }
    }
    let files = std::fs::read_dir(&folder).expect("the folder");
    let left: BTreeMap<_, _> = files.flatten().map(|f| (f.file_name(), ())).collect();
    let left: Vec<_> = left.keys().filter(|name| *name != "stderr").collect();
    // What cannot be removed stays; the next start takes it over.
    if status.is_some() && !left.is_empty() && words.get(2) != Some(&"unlink") {
        wrong.push(format!("files are left over: {left:?}"));
    }
    let _ = std::fs::remove_dir_all(&folder);
    Played { text, wrong }
}
