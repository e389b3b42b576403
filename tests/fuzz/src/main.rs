//! The fuzzer: seeds from the shared vectors and from corpus/, mutations, and a corpus that grows by what is new.
//!
//! usage: fcgi-fuzz [--seconds N] [--target NAME]... [--seed N] [--plant NAME] [--plants] [--replay FILE] [--list]
//!
//! `--plants` plants each of the known bugs in turn and fails unless it is found.

mod mutate;

use fcgi_fuzz::rng::Rng;
use fcgi_fuzz::{alloc, plant, Target, TARGETS};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[global_allocator]
static COUNTING: alloc::Counting = alloc::Counting;

/// No input takes so long on any machine: it hangs.
const HUNG: Duration = Duration::from_secs(20);
/// Inputs that a target's corpus grows to at most.
const CORPUS_MAX: usize = 4000;

struct Arguments {
    seconds: f64,
    targets: Vec<&'static Target>,
    seed: u64,
    replay: Option<PathBuf>,
    plants: bool,
}

fn arguments() -> Result<Option<Arguments>, String> {
    // Another seed each time, so that runs add up; it is printed, and --seed repeats it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    let mut found =
        Arguments { seconds: 60.0, targets: Vec::new(), seed: now % 1_000_000_007, replay: None, plants: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        if flag == "--list" {
            TARGETS.iter().for_each(|target| println!("target {}", target.name));
            plant::PLANTS.iter().for_each(|(name, target, what)| println!("plant {name} in {target}: {what}"));
            return Ok(None);
        }
        if flag == "--plants" {
            found.plants = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse::<f64>().map_err(|_| format!("{flag}: {value} is no number"));
        match flag.as_str() {
            "--seconds" => found.seconds = number()?,
            "--seed" => found.seed = number()? as u64,
            "--replay" => found.replay = Some(value.into()),
            "--target" => {
                let target = TARGETS.iter().find(|target| target.name == value);
                found.targets.push(target.ok_or_else(|| format!("no target {value}; --list shows them"))?);
            }
            "--plant" => {
                if !plant::plant(&value) {
                    return Err(format!("no plant {value}; --list shows them"));
                }
            }
            _ => return Err(format!("no flag {flag}")),
        }
    }
    if found.targets.is_empty() {
        found.targets = TARGETS.iter().collect();
    }
    Ok(Some(found))
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Inputs of the shared vectors, what earlier runs found (a line of hex each), and for texts the option table and the address grammar.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    if target.text {
        seeds.extend(mutate::texts(target.name).into_iter().map(String::into_bytes));
    } else {
        let vectors = std::fs::read_to_string(here().join("../vectors/vectors.txt")).unwrap_or_default();
        for line in vectors.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            if let [_, side, input, trailing, ..] = fields[..] {
                if (side == "pairs") == (target.name == "params") {
                    seeds.push(unhex(&format!("{input}{}", trailing.trim_matches('-'))));
                }
            }
        }
    }
    let corpus =
        std::fs::read_to_string(here().join("corpus").join(target.name).with_extension("txt")).unwrap_or_default();
    seeds.extend(corpus.lines().map(unhex));
    seeds
}

/// The case under way, for the watch that ends a hung one.
type Watched = Arc<Mutex<Option<(Instant, &'static str, Vec<u8>)>>>;

fn watch(watched: Watched) {
    std::thread::spawn(move || loop {
        std::thread::sleep(Duration::from_millis(500));
        if let Ok(case) = watched.lock() {
            if let Some((since, name, input)) = &*case {
                if since.elapsed() > HUNG {
                    report(name, input, "hung");
                    std::process::exit(1);
                }
            }
        }
    });
}

fn report(name: &str, input: &[u8], why: &str) {
    println!("FAIL {name}: {why}");
    println!("input ({} bytes): {}", input.len(), hex(input));
    if plant::any() {
        return;
    }
    let folder = here().join("found");
    let path = folder.join(format!("{name}-{:016x}", fcgi_fuzz::rng::hash(input)));
    if std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)).is_ok() {
        println!("kept in tests/fuzz/found; again with: tests/fuzz/run --target {name} --replay {}", path.display());
    }
}

fn run(target: &'static Target, input: &[u8], watched: &Watched) -> Result<u64, String> {
    if let Ok(mut case) = watched.lock() {
        *case = Some((Instant::now(), target.name, input.to_vec()));
    }
    let done = std::panic::catch_unwind(|| (target.run)(input));
    if let Ok(mut case) = watched.lock() {
        *case = None;
    }
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Err(format!("panic: {}", text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()))
    })
}

/// Leaves out what is not needed for the failure: halves, then quarters, down to single bytes.
fn shrink(target: &'static Target, mut input: Vec<u8>, watched: &Watched) -> Vec<u8> {
    let until = Instant::now() + Duration::from_secs(3);
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() && Instant::now() < until {
            let mut less = input.clone();
            less.drain(at..(at + size).min(input.len()));
            if run(target, &less, watched).is_err() {
                input = less;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    input
}

/// Fuzzes a target for that long: how many inputs, and how many were new. Err: a promise was broken.
fn fuzz(target: &'static Target, time: Duration, rng: &mut Rng, watched: &Watched) -> Result<(u64, usize), ()> {
    let until = Instant::now() + time;
    let (mut corpus, mut seen, mut count) = (seeds(target), HashSet::new(), 0);
    let started_with = corpus.len();
    let fail = |input: Vec<u8>| -> Result<(u64, usize), ()> {
        if plant::any() {
            return Err(());
        }
        let input = shrink(target, input, watched);
        let why = run(target, &input, watched).err().unwrap_or_else(|| "fails, but not each time".into());
        report(target.name, &input, &why);
        Err(())
    };
    for input in &corpus {
        match run(target, input, watched) {
            Ok(signature) => seen.insert(signature),
            Err(_) => return fail(input.clone()),
        };
        count += 1;
    }
    while Instant::now() < until {
        let input = mutate::mutate(&corpus, target, rng);
        count += 1;
        match run(target, &input, watched) {
            Ok(signature) => {
                if seen.insert(signature) && corpus.len() < CORPUS_MAX {
                    corpus.push(input);
                }
            }
            Err(_) => return fail(input),
        }
    }
    Ok((count, corpus.len() - started_with))
}

/// Plants each bug until it is found, a minute at most (a busy machine tries less in a second): not to find it is the failure.
fn plants(seed: u64, watched: &Watched) -> ExitCode {
    let mut missed = 0;
    for (name, target, what) in plant::PLANTS {
        plant::plant(name);
        let target = TARGETS.iter().find(|known| known.name == target);
        let mut rng = Rng::new(seed ^ fcgi_fuzz::rng::hash(name.as_bytes()));
        let found = target.is_some_and(|target| fuzz(target, Duration::from_secs(60), &mut rng, watched).is_err());
        println!("{} planted {name}: {what}", if found { "found " } else { "MISSED" });
        missed += usize::from(!found);
    }
    println!("plants: {} passed, {missed} failed", plant::PLANTS.len() - missed);
    ExitCode::from(u8::from(missed > 0))
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("fcgi-fuzz: {why}");
            return ExitCode::from(3);
        }
    };
    let watched = Watched::default();
    watch(watched.clone());
    // A caught panic is reported with its input; its own text would come first and without.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(path) = &arguments.replay {
        let Ok(input) = std::fs::read(path) else {
            eprintln!("fcgi-fuzz: cannot read {}", path.display());
            return ExitCode::from(3);
        };
        let mut failed = 0;
        for target in arguments.targets {
            match run(target, &input, &watched) {
                Ok(_) => println!("ok   {}", target.name),
                Err(why) => {
                    println!("FAIL {}: {why}", target.name);
                    failed += 1;
                }
            }
        }
        return ExitCode::from(u8::from(failed > 0));
    }
    println!("seed {}", arguments.seed);
    if arguments.plants {
        return plants(arguments.seed, &watched);
    }
    let mut failed = 0;
    let share = arguments.seconds / arguments.targets.len() as f64;
    for target in &arguments.targets {
        let mut rng = Rng::new(arguments.seed ^ fcgi_fuzz::rng::hash(target.name.as_bytes()));
        match fuzz(target, Duration::from_secs_f64(share), &mut rng, &watched) {
            Ok((count, new)) => println!("ok   {:15} {count:8} inputs, {new:4} of them new in kind", target.name),
            Err(()) => failed += 1,
        }
    }
    println!("fuzz: {} passed, {failed} failed", arguments.targets.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}
