//! The policy under a virtual clock: random pools, random events, and rules that hold whatever happens. `tests/sim/run` is
//! the long run; SIM_SEED replays an episode, SIM_STEPS says how many steps at least.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod machine;
mod random;
mod rules;
mod world;

use fcgi_core::manager::action::Event;
use machine::{Fault, FAULTS};
use random::Random;
use std::fmt::Write;
use world::World;

/// What came of an episode that broke a rule.
struct Broken {
    seed: u64,
    why: String,
    report: String,
}

/// One pool from its start to its end. Returns the steps that it took.
fn episode(seed: u64, fault: Fault) -> Result<u64, Broken> {
    let mut world = World::new(seed, fault);
    let length = world.random.one_of(&[30, 300, 2000]);
    let length = world.random.within(1, length);
    while world.steps < length && !world.ended && world.violation.is_none() {
        world.step();
    }
    if !world.random.percent(25) {
        settle(&mut world);
    }
    stop(&mut world);
    let Some(why) = world.violation.take() else {
        return Ok(world.steps);
    };
    let given: Vec<String> = world.given.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut report =
        format!("{why}\n  replay: SIM_SEED={seed} tests/sim/run --steps 1\n  options: {}\n", given.join(" "));
    for line in &world.history {
        let _ = writeln!(report, "  {line}");
    }
    let status = world.machine.status();
    let _ = writeln!(report, "  {}, generation {}, target {}", status.state, status.generation, status.target);
    for worker in status.workers {
        let _ = writeln!(report, "  {worker:?}");
    }
    Err(Broken { seed, why, report })
}

/// Nothing fails any more and nobody wants anything: the pool must reach its target, and every change must end.
fn settle(world: &mut World) {
    if world.ended || world.violation.is_some() {
        return;
    }
    world.calm_down();
    let o = &world.options;
    let most = u64::from(world.ceiling + o.max_surge) + world.processes.len() as u64;
    let patience = 120_000
        + 3 * (o.restart_delay_max.0 + o.stop_timeout.0 + o.start_timeout.0 + o.failure_grace.0)
        + most * 4 * (1000 + o.canary_time.0)
        + 20 * (o.idle_timeout.0 + o.sample_interval.0);
    let begun = world.now;
    let mut until = begun + patience;
    // What was about to fail when the calm began may cause a hold, and another one.
    let mut helped = 0;
    while !world.ended && world.violation.is_none() {
        if world.machine.is_stopping() {
            return;
        }
        let status = world.machine.status();
        let current = world.processes.iter().filter(|p| p.is_serving() && p.generation == status.generation).count();
        let active = world.processes.iter().filter(|p| p.is_active()).count();
        // Without workers nothing can show that starts succeed again.
        let well = status.state == "running" || status.state == "degraded" && status.target == 0;
        if current as u32 == status.target && active == current && world.open.is_empty() && well {
            return;
        }
        if status.state == "holding" && helped < 3 && world.now > begun + 3000 {
            helped += 1;
            until = world.now + patience;
            let change = world.change();
            world.event(Event::Reload { change, reason: "after the hold".into() });
        }
        if world.now > until {
            let (open, state, target) = (&world.open, status.state, status.target);
            let text = format!("{state}, {current} of {target} serve, {active} active, changes {open:?} open");
            return world.fail(format!("does not settle within {patience} ms: {text}"));
        }
        world.step();
    }
}

/// Whatever it is doing: asked to stop, it ends.
fn stop(world: &mut World) {
    if world.violation.is_some() {
        return;
    }
    let begun = world.now;
    if !world.ended {
        if !world.random.percent(20) {
            let change = world.change();
            world.event(Event::Stop { change });
        }
        if !world.machine.is_stopping() || world.random.percent(10) {
            world.quitting = true;
            world.event(Event::Quit);
        }
    }
    let until = begun + world.options.stop_timeout.0 + world.options.drain_repeat.0 + 5000;
    let slept = world.slept;
    while !world.ended && world.violation.is_none() {
        if world.now > until + world.slept - slept {
            return world.fail(format!("has not ended {} ms after it was asked to", world.now - begun));
        }
        world.step();
    }
    if world.violation.is_some() {
        return;
    }
    let change = world.change();
    world.event(Event::Reload { change, reason: "too late".into() });
    if !world.open.is_empty() {
        return world.fail(format!("changes {:?} were never finished", world.open));
    }
    if let Some(at) = world.machine.next_deadline() {
        world.fail(format!("has ended and names a deadline, {at}"));
    }
}

/// Episodes until so many steps are done; the first one has this seed.
fn run(seed: u64, steps: u64, fault: Fault) -> Result<(u64, u64), Broken> {
    let (mut done, mut episodes, mut seeds) = (0, 0, Random(seed));
    let mut seed = seed;
    while done < steps {
        done += episode(seed, fault)?;
        episodes += 1;
        seed = seeds.next();
    }
    Ok((done, episodes))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap())
}

fn some_seed() -> u64 {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Random(time.as_nanos() as u64 ^ u64::from(std::process::id())).next()
}

fn must_hold(seed: u64, steps: u64) {
    println!("sim: seed {seed}");
    match run(seed, steps, Fault::None) {
        Ok((steps, episodes)) => println!("sim: {steps} steps in {episodes} episodes, no rule broken"),
        Err(broken) => panic!("seed {}: {}", broken.seed, broken.report),
    }
}

#[test]
fn no_rule_is_broken_from_a_fixed_seed() {
    must_hold(20, 100_000);
}

/// Episodes that once broke a rule. New ones come from `make sim`, whose seeds are random.
#[test]
fn no_rule_is_broken_again() {
    // A pool that held, and an upgrade to another command whose reload waited for ever.
    must_hold(18_027_954_409_546_987_112, 1);
}

/// The long run: `tests/sim/run`.
#[test]
#[ignore = "a minute or more; tests/sim/run"]
fn long_run() {
    must_hold(number("SIM_SEED").unwrap_or_else(some_seed), number("SIM_STEPS").unwrap_or(1_000_000));
}

/// The test of the test: a policy with a known fault must be caught.
#[test]
fn every_known_fault_is_caught() {
    let mut missed = Vec::new();
    for &fault in FAULTS {
        // The long run (SIM_STEPS) draws its seeds; `make check` does the same each time.
        let seed = number("SIM_SEED").unwrap_or_else(|| number("SIM_STEPS").map_or(20, |_| some_seed()));
        match run(seed, 500_000, fault) {
            Ok(_) => missed.push(format!("{fault:?} from seed {seed}")),
            Err(broken) => println!("{fault:?}: {}", broken.why),
        }
    }
    assert!(missed.is_empty(), "not caught within 500000 steps: {missed:?}");
}
