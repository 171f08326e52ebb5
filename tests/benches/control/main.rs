//! What it costs to change what is steered, with few namespaces and with many: `cargo xtask bench control`. The figures of
//! many are beside those of one, of the same run.

#![expect(clippy::disallowed_methods, reason = "a bench is about time, and no test depends on it")]

mod ask;
mod figures;
mod loads;
mod meanwhile;
mod others;
mod rest;
mod singles;

use std::{
    env,
    error::Error,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use redirector_tests::{daemon::Daemon, netns::Netns};
use serde_json::{Value, json};

use self::{
    ask::{RULES, attach, file, list, steered},
    figures::{spread, timed},
    loads::loads,
    meanwhile::meanwhile,
    others::Others,
    rest::{Taken, rest},
    singles::singles,
};

/// Processes that have nothing to do with it while the last namespaces end.
const OTHERS: usize = 3000;

/// Namespaces that only a process keeps, at most.
const HELD: usize = 300;

/// Namespaces that end while something large is done.
const MORTALS: usize = 60;

/// Until so many others have been served something large is done again, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn namespaces(count: usize) -> Vec<Netns> {
    (0..count).map(|_| up(Netns::new())).collect()
}

fn up(netns: Netns) -> Netns {
    netns.ip("link set lo up");
    netns
}

/// Ends namespaces: how long it takes from the end of the last until none is steered any more.
fn until_gone(daemon: &Daemon, all: Vec<Netns>) -> f64 {
    drop(all);
    let gone = || {
        while steered(daemon.socket()) > 0 {
            thread::sleep(Duration::from_millis(5));
        }
    };
    timed(gone).1
}

/// A file of namespaces that is applied.
struct File<'a> {
    daemon: &'a Daemon,
    path: PathBuf,
}

impl<'a> File<'a> {
    fn new(daemon: &'a Daemon, name: &str, all: &[Netns], first: usize) -> Outcome<Self> {
        let path = daemon.dir().join(name);
        fs::write(&path, file(all, first))?;
        Ok(Self { daemon, path })
    }

    /// How long it takes.
    fn apply(&self) -> f64 {
        timed(|| self.daemon.cli().run(&["apply", self.path.to_str().expect("UTF-8")]).success()).1
    }
}

fn many(count: usize) -> Outcome<Value> {
    println!("{count} namespaces, {RULES} rules each");
    let (all, singly) = (namespaces(count), namespaces(5));
    let daemon = Daemon::with_log_read(&[]);
    let socket = daemon.socket();
    let nothing = Taken::by(&daemon);
    let [one, other] =
        [File::new(&daemon, "one.toml", &all, 8000)?, File::new(&daemon, "other.toml", &all, 9000)?];
    let applied = one.apply();
    let unchanged = one.apply();
    let lists = spread((0..50).map(|_| timed(|| list(socket)).1).collect()).0;
    println!("  apply: {applied:.0} ms; again: {unchanged:.0} ms; list: {lists:.1} ms");
    let rest = rest(&daemon, nothing, count);
    let singles = singles(&daemon, &singly);
    let mortals = namespaces(MORTALS);
    mortals.iter().for_each(|mortal| attach(socket, &mortal.target()));
    let mut changes = Vec::new();
    let seen = meanwhile(&daemon, &singly[0], mortals, |seen| {
        let begin = Instant::now();
        for file in [&other, &one].into_iter().cycle() {
            changes.push(file.apply());
            if seen.suffices() || begin.elapsed() > PATIENCE {
                break;
            }
        }
    });
    println!(
        "  apply of other rules, {} times: median {:.0} ms; meanwhile",
        changes.len(),
        spread(changes.clone()).0
    );
    let seen = seen.told();
    while steered(socket) > count {
        thread::sleep(Duration::from_millis(5));
    }
    let gone = until_gone(&daemon, all);
    println!("  from the last deletion until `list` is empty: {gone:.0} ms");
    let fresh = namespaces(count);
    let targets: Vec<_> = fresh.iter().map(Netns::target).collect();
    let ((), attached) = timed(|| targets.iter().for_each(|target| attach(socket, target)));
    println!("  {count} attaches one after the other: {attached:.0} ms");
    let others = Others::start(OTHERS);
    let gone_beside = until_gone(&daemon, fresh);
    println!(
        "  from the last deletion until `list` is empty, beside {OTHERS} processes: {gone_beside:.0} ms"
    );
    let held = held(&daemon, count.min(HELD))?;
    drop(others);
    Ok(json!({
        "namespaces": count,
        "apply_ms": applied,
        "apply_unchanged_ms": unchanged,
        "apply_changed_ms": spread(changes).0,
        "meanwhile_ms": seen,
        "list_ms": lists,
        "rest": rest,
        "single_ms": singles,
        "gone_ms": gone,
        "attaches_ms": attached,
        "gone_beside_processes_ms": gone_beside,
        "held": held,
    }))
}

/// Namespaces that only a process keeps.
fn held(daemon: &Daemon, count: usize) -> Outcome<Value> {
    let all: Vec<_> = (0..count).map(|_| up(Netns::of_process())).collect();
    let applied = File::new(daemon, "held.toml", &all, 8000)?.apply();
    let gone = until_gone(daemon, all);
    println!(
        "  {count} that only a process keeps: apply {applied:.0} ms, and from the last end until `list` is empty {gone:.0} ms"
    );
    Ok(json!({ "namespaces": count, "apply_ms": applied, "gone_ms": gone }))
}

fn main() -> Outcome<()> {
    let counts: Vec<usize> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![1, 100, 500, 1000] } else { counts };
    let loads = loads()?;
    let rows = counts.into_iter().map(many).collect::<Outcome<Vec<_>>>()?;
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("control.json");
    let document = json!({ "schema": 2, "loads": loads, "rows": rows });
    fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    println!("{}", file.display());
    Ok(())
}
