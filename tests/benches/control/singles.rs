//! Single attaches and detaches, beside what is steered already.

use std::{thread, time::Duration};

use redirector_tests::{daemon::Daemon, netns::Netns};
use serde_json::{Value, json};

use crate::{
    ask::{attach, detach},
    figures::{spread, timed},
};

/// Attaches and detaches whose median is a figure.
const SINGLE: usize = 30;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

/// Single attaches and detaches of namespaces that are not in the file, by the API and by the command line.
pub(crate) fn singles(daemon: &Daemon, others: &[Netns]) -> Value {
    let socket = daemon.socket();
    let (mut attaches, mut detaches, mut by_command) = (Vec::new(), Vec::new(), Vec::new());
    for netns in others.iter().cycle().take(SINGLE) {
        let target = netns.target();
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
