//! Fault injection at the system-call border: each scene is played once to count its calls, and then once for each call and each error
//! that the call can have. Afterwards nothing may be left over, nothing may hang, and what failed is to name the call.
//!
//!     faults short|long [SCENE]                     plays; short: a sample of the calls, one error each
//!     faults play SCENE [ROLE CALL NTH ERRNO]       one of them, for debugging; FCGIGUARD_FAULT_TRACE=1 shows where it strikes
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]
#![allow(unsafe_code)]

mod driver;
mod files;
mod pool;
mod scenes;

use fcgi_core::sys::fault::{self, Role};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        ["play", scene] => play(scene, None),
        ["play", scene, role, call, nth, errno] => {
            let role = match *role {
                "main" => Role::Main,
                "child" => Role::Child,
                _ => Role::Worker,
            };
            let call = fault::number(call).expect("a call of the table");
            play(scene, Some((role, call, nth.parse().unwrap(), errno.parse().unwrap())))
        }
        ["serve"] => pool::serve_command(),
        ["next-image"] => pool::refusing_image(),
        ["new-image", ..] => pool::new_image(),
        ["long", rest @ ..] => driver::run(true, rest.first().copied()),
        ["short", rest @ ..] => driver::run(false, rest.first().copied()),
        // As cargo test runs it.
        _ => driver::run(false, None),
    };
    std::process::exit(code);
}

/// How a message names a call: the standard library's stat calls are one.
fn in_messages(call: &str) -> &str {
    match call {
        "statx" => "stat",
        other => other.split('(').next().unwrap_or_default(),
    }
}

/// Whether a notice, the error, or what a worker printed names the call.
fn named(told: &scenes::Told, call: &str) -> bool {
    let printed = std::fs::read_to_string("stderr").unwrap_or_default();
    let workers = printed.lines().filter(|line| line.starts_with("said "));
    workers.chain(told.said.iter().chain(&told.failed).map(String::as_str)).any(|text| text.contains(call))
}

fn report_counts() {
    for (role, call, count) in fault::counted() {
        println!("count {role:?} {} {count}", fault::CALLS[call].0);
    }
}

/// Plays a scene in this process. Prints what it came to; 0 if all is as it should be.
fn play(name: &str, target: Option<(Role, usize, u32, i32)>) -> i32 {
    let scene = scenes::ALL.iter().find(|(known, _)| *known == name).expect("a scene").1;
    fault::arm(target).expect("memory for the counts");
    let before = scenes::left_over();
    let call = target.map(|(_, call, _, _)| in_messages(fault::CALLS[call].0));
    let mut wrong = Vec::new();
    let mut told = scenes::Told::default();
    fault::become_role(Role::Main);
    scene(&mut told);
    fault::become_role(Role::None);
    if target.is_none() {
        report_counts();
    }
    wrong.append(&mut told.wrong);
    if let Some(reason) = &told.failed {
        if target.is_none() {
            wrong.push(format!("failed without a fault: {reason}"));
        } else if !call.is_some_and(|call| named(&told, call)) && !scenes::is_the_peers() {
            wrong.push(format!("the message does not name the call: {reason}"));
        }
    }
    wrong.extend(scenes::difference(&before, "after the fault"));
    if let Some(line) = fault::hit() {
        println!("hit {line}");
        // The fault is spent: now everything must be well.
        let mut again = scenes::Told::default();
        fault::become_role(Role::Main);
        scene(&mut again);
        fault::become_role(Role::None);
        wrong.append(&mut again.wrong);
        wrong.extend(again.failed.map(|reason| format!("does not work afterwards: {reason}")));
        wrong.extend(scenes::difference(&before, "after the second run"));
    }
    for text in &told.said {
        println!("said {text}");
    }
    if let Some(reason) = &told.failed {
        println!("failed {reason}");
    }
    for text in &wrong {
        println!("WRONG {text}");
    }
    i32::from(!wrong.is_empty())
}
