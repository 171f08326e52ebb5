//! What it costs to change what is steered, with few namespaces and with many: `cargo xtask bench control`. The figures of
//! many are beside those of one, of the same run and the same daemon.

#![expect(clippy::disallowed_methods, reason = "a bench is about time, and no test depends on it")]

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use redirector::{
    config::RuleSpec,
    kernel::{Ingress, Instance, RuleSet},
    matcher::{Placed, compile},
    sys::bpf::{Instruction, sk_lookup_program},
};
use redirector_tests::{daemon::Daemon, http, netns::Netns};
use serde_json::{Value, json};

/// Rules of each namespace in the file.
const RULES: usize = 10;

/// Single attaches and detaches whose median is a figure.
const SINGLE: usize = 20;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the daemon is watched while nothing happens.
const REST: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1e3)
}

/// Of milliseconds: the median, the hundredth, the largest.
fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    let at = |part: f64| all[((all.len() - 1) as f64 * part).round() as usize];
    (at(0.5), at(0.99), at(1.0))
}

/// What a load costs in the verifier, by what the rules look at, beside a program that does nothing.
fn loads() -> Outcome<Vec<Value>> {
    const TIMES: usize = 20;
    let nothing = [Instruction::from_parts(0xb7, 0, 0, 1), Instruction::from_parts(0x95, 0, 0, 0)];
    let median = |load: &mut dyn FnMut() -> Outcome<()>| -> Outcome<f64> {
        let mut all = Vec::new();
        for _ in 0..TIMES {
            let (done, took) = timed(&mut *load);
            done?;
            all.push(took);
        }
        Ok(spread(all).0)
    };
    let floor = median(&mut || Ok(sk_lookup_program(&nothing, "nothing").map(drop)?))?;
    println!("a load of a program that does nothing: {floor:.2} ms");
    let mut rows = Vec::new();
    for (what, matches, from) in [
        ("ports", vec!["any:80"], vec![]),
        ("destinations, IPv4", vec!["tcp:10.0.0.0/8:80"], vec![]),
        ("sources, both families", vec!["tcp:80"], vec!["10.0.0.0/8", "fd00::/8"]),
        (
            "destinations and sources",
            vec!["tcp:10.0.0.0/8:80", "tcp:[fd00::/8]:80"],
            vec!["10.0.0.0/8", "fd00::/8"],
        ),
    ] {
        let spec = json!({ "match": matches, "from": from, "to": ["original"] });
        let spec: RuleSpec = serde_json::from_value(spec)?;
        let rule = spec.named("bench".parse()?);
        let rule_set: RuleSet = compile([Placed::new(&rule, 0)])?.into();
        let shared = Arc::default();
        let mut walked = None;
        let took = median(&mut || {
            let instance = Instance::load_with(&shared, &rule_set, 1, Ingress::Read)?;
            walked = instance.verified_instructions()?;
            Ok(())
        })?;
        let walked = walked.map_or_else(|| "?".to_owned(), |walked| walked.to_string());
        println!("a load for rules that name {what}: {took:.2} ms, {walked} instructions verified");
        rows.push(json!({ "rules": what, "ms": took, "verified": walked }));
    }
    Ok(rows)
}

fn namespace() -> Netns {
    let netns = Netns::new();
    netns.ip("link set lo up");
    netns
}

/// A namespace's name, as a target.
fn target(netns: &Netns) -> String {
    format!("netns:{}", netns.path().file_name().expect("a name").display())
}

#[track_caller]
fn post(socket: &Path, path: &str, body: &Value) -> Value {
    let answer = http::post(socket, path, &body.to_string());
    assert_eq!(answer.status, 200, "{path}: {:#}", answer.body);
    answer.body
}

fn list(socket: &Path) -> Value {
    let answer = http::get(socket, "/v1/namespaces");
    assert_eq!(answer.status, 200, "{:#}", answer.body);
    answer.body
}

fn attach(socket: &Path, target: &str) {
    let rule = json!({ "name": "one", "match": ["tcp:80"], "to": ["original"] });
    post(socket, "/v1/attach", &json!({ "target": target, "rule": rule }));
}

fn detach(socket: &Path, target: &str) {
    post(socket, "/v1/detach", &json!({ "target": target }));
}

/// The file of these namespaces.
fn file(all: &[Netns]) -> String {
    let mut text = String::new();
    for netns in all {
        writeln!(text, "[[namespace]]\ntarget = \"{}\"\n", target(netns)).expect("a String takes all");
        for number in 0..RULES {
            let port = 8000 + 10 * number;
            writeln!(text, "[[namespace.rule]]\nmatch = [\"tcp:{port}\"]\nto = [\"original\"]\n")
                .expect("a String takes all");
        }
    }
    text
}

/// How long others have waited while something large was done: for a list, for an attach elsewhere, and from the end of a
/// namespace until it is let go of.
#[derive(Default)]
struct Meanwhile {
    lists: Vec<f64>,
    attaches: Vec<f64>,
    deaths: Vec<f64>,
}

/// Does `work`, and meanwhile what others do. The `mortals` are steered, and end one after the other.
fn meanwhile(socket: &Path, other: &Netns, mortals: Vec<Netns>, work: impl FnOnce()) -> Meanwhile {
    let is_done = AtomicBool::new(false);
    let goes_on = || !is_done.load(Ordering::Relaxed);
    let pause = || thread::sleep(Duration::from_millis(10));
    thread::scope(|scope| {
        let lister = scope.spawn(|| {
            let mut all = Vec::new();
            while goes_on() {
                all.push(timed(|| list(socket)).1);
                pause();
            }
            all
        });
        let attacher = scope.spawn(|| {
            let (mut all, target) = (Vec::new(), target(other));
            while goes_on() {
                all.push(timed(|| attach(socket, &target)).1);
                detach(socket, &target);
                pause();
            }
            all
        });
        let reaper = scope.spawn(|| {
            let mut all = Vec::new();
            for mortal in mortals {
                let target = target(&mortal);
                let is_steered = || {
                    let list = list(socket);
                    let mut there = list["namespaces"].as_array().expect("an array").iter();
                    there.any(|one| one["target"] == target.as_str())
                };
                let ((), took) = timed(|| {
                    drop(mortal);
                    while is_steered() {
                        thread::sleep(Duration::from_millis(2));
                    }
                });
                if !goes_on() {
                    break;
                }
                all.push(took);
            }
            all
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        Meanwhile {
            lists: lister.join().expect("the thread that lists"),
            attaches: attacher.join().expect("the thread that attaches"),
            deaths: reaper.join().expect("the thread that ends namespaces"),
        }
    })
}

/// Single attaches and detaches of namespaces that are not in the file, by the API and by the command line.
fn singles(daemon: &Daemon, others: &[Netns]) -> Value {
    let socket = daemon.socket();
    let (mut attaches, mut detaches, mut by_command) = (Vec::new(), Vec::new(), Vec::new());
    for netns in others.iter().cycle().take(SINGLE) {
        let target = target(netns);
        thread::sleep(PAUSE);
        attaches.push(timed(|| attach(socket, &target)).1);
        thread::sleep(PAUSE);
        detaches.push(timed(|| detach(socket, &target)).1);
        thread::sleep(PAUSE);
        let arguments = ["attach", &target, "--match", "tcp:80", "--to", "original"];
        by_command.push(timed(|| daemon.cli().run(&arguments).success()).1);
        detach(socket, &target);
    }
    let figures = [("attach", attaches), ("detach", detaches), ("attach by command", by_command)];
    let mut document = json!({});
    for (what, all) in figures {
        let (median, _, most) = spread(all);
        println!("  one {what}: median {median:.1} ms, at most {most:.1} ms");
        document[what] = json!(median);
    }
    document
}

fn many(count: usize) -> Outcome<Value> {
    println!("{count} namespaces, {RULES} rules each");
    let all: Vec<_> = (0..count).map(|_| namespace()).collect();
    let others: Vec<_> = (0..5).map(|_| namespace()).collect();
    let daemon = Daemon::with_log_read(&[]);
    let socket = daemon.socket();
    let (memory, fds) = (daemon.anonymous_kib(), daemon.fds_at_rest());
    let path = daemon.dir().join("bench.toml");
    fs::write(&path, file(&all))?;
    let apply = || drop(daemon.cli().run(&["apply", path.to_str().expect("UTF-8")]).success());
    let mortals: Vec<_> = (0..10).map(|_| namespace()).collect();
    mortals.iter().for_each(|one| attach(socket, &target(one)));
    let mut applied = 0.0;
    let seen = meanwhile(socket, &others[0], mortals, || applied = timed(apply).1);
    println!("  apply: {applied:.0} ms; meanwhile");
    let mut document = json!({});
    let figures = [("list", seen.lists), ("attach elsewhere", seen.attaches), ("death", seen.deaths)];
    for (what, all) in figures {
        if all.is_empty() {
            // It was over too soon.
            continue;
        }
        let (count, (median, hundredth, most)) = (all.len(), spread(all));
        println!("    {what}: median {median:.1}, p99 {hundredth:.1}, at most {most:.1} ms, of {count}");
        document[what] = json!(hundredth);
    }
    // What is left of those that end.
    while list(socket)["namespaces"].as_array().map(Vec::len) > Some(count) {
        thread::sleep(Duration::from_millis(5));
    }
    let unchanged = timed(apply).1;
    let lists = spread((0..20).map(|_| timed(|| list(socket)).1).collect()).0;
    println!("  apply of what is there: {unchanged:.0} ms; list: {lists:.1} ms");
    let each = count as f64;
    let memory = (daemon.anonymous_kib() - memory) as f64 / each;
    let fds = (daemon.fds_at_rest() - fds) as f64 / each;
    let before = daemon.cpu_time();
    thread::sleep(REST);
    let rest = (daemon.cpu_time() - before).as_secs_f64() / REST.as_secs_f64() * 100.0;
    println!("  each {memory:.1} KiB of anonymous memory and {fds:.1} fds; at rest {rest:.2} % of a core");
    let singles = singles(&daemon, &others);
    drop(all);
    let ((), gone) = timed(|| {
        while !list(socket)["namespaces"].as_array().expect("an array").is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    println!("  from the last deletion until `list` is empty: {gone:.0} ms");
    let fresh: Vec<_> = (0..count).map(|_| namespace()).collect();
    let targets: Vec<_> = fresh.iter().map(target).collect();
    let ((), attached) = timed(|| targets.iter().for_each(|target| attach(socket, target)));
    println!("  {count} attaches one after the other: {attached:.0} ms");
    Ok(json!({
        "namespaces": count,
        "apply_ms": applied,
        "meanwhile_p99_ms": document,
        "apply_unchanged_ms": unchanged,
        "list_ms": lists,
        "memory_kib": memory,
        "fds": fds,
        "rest_percent": rest,
        "single_ms": singles,
        "gone_ms": gone,
        "attaches_ms": attached,
    }))
}

fn main() -> Outcome<()> {
    let counts: Vec<usize> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1, 100, 500, 1000] } else { counts };
    let loads = loads()?;
    let rows = counts.into_iter().map(many).collect::<Outcome<Vec<_>>>()?;
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("control.json");
    let document = json!({ "schema": 1, "loads": loads, "rows": rows });
    fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    println!("{}", file.display());
    Ok(())
}
