//! The names that completions of shells ask for.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    cli::output,
    config::{Engine, Target, socket_path},
    control::{self, DEFAULT_SOCKET, Listing},
    locate::{Engines, NAMED},
};

/// How long somebody who types waits for a daemon or an engine.
const PATIENCE: Duration = Duration::from_secs(1);

/// Prints names of a kind, one a line: `targets`, or `rules` of a target. What cannot be asked has none.
pub(in crate::cli) fn print(kind: &OsStr, of: Option<&OsString>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let names = match kind.to_str() {
        Some("targets") => runtime.block_on(targets()),
        Some("rules") => runtime.block_on(rules(of)),
        _ => BTreeSet::new(),
    };
    // A name that is no target, or could be more than one line, is nobody's.
    let names = names.iter().filter(|name| !name.contains(char::is_control));
    drop(output::print(|out| names.into_iter().try_for_each(|name| writeln!(out, "{name}"))));
}

async fn targets() -> BTreeSet<String> {
    let mut targets: BTreeSet<String> = ["self", "host"].map(str::to_owned).into();
    let named = fs::read_dir(NAMED)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    targets.extend(named.map(|name| format!("netns:{name}")));
    if let Some(listing) = listing().await {
        targets.extend(listing.namespaces.iter().map(|one| one.target.to_string()));
    }
    let engines = Engine::ALL.into_iter().fold(Engines::default(), |engines, engine| {
        let variable = format!("REDIRECTOR_{}_SOCKET", engine.to_string().to_uppercase());
        match path_of(&variable) {
            Some(socket) => engines.with(engine, socket),
            None => engines,
        }
    });
    for engine in Engine::ALL {
        let asked = async { engines.hold(engine).await.ok()?.names().await.ok() };
        let names = tokio::time::timeout(PATIENCE, asked).await.ok().flatten().unwrap_or_default();
        targets.extend(names.into_iter().map(|name| format!("{engine}:{name}")));
    }
    targets.retain(|name| name.parse::<Target>().is_ok());
    targets
}

async fn rules(of: Option<&OsString>) -> BTreeSet<String> {
    let target = of.and_then(|of| of.to_str());
    let Some(listing) = listing().await else { return BTreeSet::new() };
    let of_target = listing.namespaces.iter().filter(|one| target == Some(&one.target.to_string()));
    of_target.flat_map(|one| &one.rules).map(|rule| rule.name.to_string()).collect()
}

async fn listing() -> Option<Listing> {
    let socket = path_of("REDIRECTOR_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into());
    let asked = control::get::<Listing>(Path::new(&socket), "/v1/namespaces");
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

fn path_of(variable: &str) -> Option<PathBuf> {
    socket_path(&std::env::var_os(variable)?).ok()
}
