//! `cargo xtask ci`: what has to hold before a change goes in. `.ci/run` calls it on a clean clone.

use std::{
    env,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result};

use crate::{cargo, dist, engine, run, setup, soak, test, tool, vm};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 12] = [
    ("first run", first_run),
    ("set-up", set_up),
    ("formatting", formatting),
    ("lints", lints),
    ("lints for BPF", lints_for_bpf),
    ("documentation", documentation),
    ("tests", tests),
    ("a tenth of a soak", || soak::run(&soak::Options::tenth())),
    ("demo with Docker", || demo(engine::Kind::Docker)),
    ("demo with Podman", || demo(engine::Kind::Podman)),
    ("packages", || dist::run(&dist::Options { check: true })),
    ("tests in virtual machines", vm::ci),
];

/// Stops at the first step that fails: a later one would mostly say the same again.
pub(crate) fn run() -> Result<()> {
    let mut times = Vec::new();
    let mut result = Ok(());
    for (name, step) in STEPS {
        tool::note(&format!("ci: {name}"));
        let start = Instant::now();
        result = step().with_context(|| format!("ci: {name}"));
        times.push((name, start.elapsed()));
        if result.is_err() {
            break;
        }
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    for (name, time) in times.into_iter().chain([("in all", total)]) {
        tool::note(&format!("ci: {name:<26} {:>7.1} s", time.as_secs_f64()));
    }
    result
}

/// What somebody sees who has just cloned this. `.ci/run` says when it began to build xtask.
fn first_run() -> Result<()> {
    run::run(&run::Options::first())?;
    let began = env::var("REDIRECTOR_CI_BEGAN").ok().and_then(|began| began.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    if let (Some(began), Some(now)) = (began, now) {
        let seconds = now.as_secs().saturating_sub(began);
        tool::note(&format!("ci: `cargo xtask run --once`, with the build of xtask, took {seconds} s"));
    }
    Ok(())
}

fn set_up() -> Result<()> {
    // Linting for BPF builds `core`, even where a ready object makes the rest of the BPF toolchain needless.
    setup::rust_src()?;
    setup::for_build()
}

fn formatting() -> Result<()> {
    tool::call(&mut cargo::command(&["fmt", "--all", "--", "--check"]))
}

fn lints() -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tool::call(&mut cargo::command(&arguments))
}

/// The kernel program as its own target sees it. The host's clippy sees only the library half.
fn lints_for_bpf() -> Result<()> {
    let mut clippy = cargo::command(&["clippy", "--locked", "--package", "redirector-ebpf"]);
    clippy.args(["--bin", "redirector-ebpf", "--features", "program"]);
    clippy.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    // Other flags than the host's: in one directory each would throw away what the other built.
    clippy.args(["--target-dir", "target/bpf", "--", "-D", "warnings"]);
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy.env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    tool::call(&mut clippy)
}

fn documentation() -> Result<()> {
    let mut doc =
        cargo::command(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    tool::call(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn demo(engine: engine::Kind) -> Result<()> {
    run::run(&run::Options::once(engine))
}

fn tests() -> Result<()> {
    test::run(&test::Options::default())
}
