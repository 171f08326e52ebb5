//! A machine for a reader: a network and a `/run` of its own, and `redirector` in the PATH.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

use redirector_tests::{
    command::{Outcome, run, spawn},
    daemon::binary,
    dir::Dir,
    eventually::eventually,
    holder::Holder,
};

use super::{
    SECOND,
    block::{self, Block, Meanwhile, What},
    printed,
};

/// Where what a reader does happens. All of it is gone with this.
pub(super) struct Site {
    background: Vec<Child>,
    holder: Option<Holder>,
    dir: Dir,
}

impl Site {
    pub(super) fn new() -> Self {
        let dir = Dir::new();
        for name in ["bin", "home"] {
            fs::create_dir(dir.join(name)).expect("make a directory");
        }
        symlink(binary().canonicalize().expect("the binary"), dir.join("bin/redirector"))
            .expect("link the binary");
        let set_up = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up && exec cat";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", set_up]);
        let holder = Holder::start(&mut command);
        Self { background: Vec::new(), holder: Some(holder), dir }
    }

    fn command(&self, text: &str) -> Command {
        let mut command = Command::new("nsenter");
        let process = self.holder.as_ref().expect("it is taken by drop only").pid();
        for (kind, file) in [("mount", "mnt"), ("net", "net"), ("pid", "pid_for_children")] {
            command.arg(format!("--{kind}=/proc/{process}/ns/{file}"));
        }
        let path =
            format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).env_remove("REDIRECTOR_SOCKET");
        command.args(["bash", "-c", &format!("cd {} && {text}", self.dir.join("home").display())]);
        command
    }

    fn run(&self, text: &str) -> Outcome {
        run(&mut self.command(&format!("{{ {text}\n}} 2>&1")))
    }

    /// Goes through a page as a reader does.
    pub(super) fn follow(&mut self, page: &Path) {
        for block in block::read(page) {
            if let Err(wrong) = self.do_as(&block) {
                let logs = self.logs();
                panic!("{}:{}: {wrong}\n{}\n{logs}", page.display(), block.line, block.text);
            }
        }
    }

    fn do_as(&mut self, block: &Block) -> Result<(), String> {
        match &block.what {
            What::Text => Ok(()),
            What::File(name) => {
                let path = self.dir.join("home").join(name);
                fs::write(&path, format!("{}\n", block.text))
                    .map_err(|error| format!("write {name}: {error}"))
            }
            What::Configuration => {
                let path = self.dir.join("block.toml");
                fs::write(&path, &block.text).map_err(|error| format!("write it: {error}"))?;
                let outcome = self.run(&format!("redirector check {}", path.display()));
                if outcome.status.success() { Ok(()) } else { Err(outcome.to_string()) }
            }
            What::Commands(meanwhile) => {
                for command in block::commands(&block.text) {
                    let background = if meanwhile.each { " &" } else { "" };
                    self.one(&format!("{}{background}", bare(&command)), code(&command), None)?;
                }
                self.wait(meanwhile)
            }
            What::Session(meanwhile) => {
                for (command, printed) in block::session(&block.text) {
                    self.one(&command, "0", Some(&printed))?;
                    if command.ends_with('&') {
                        self.wait(meanwhile)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn one(&mut self, command: &str, code: &str, said: Option<&str>) -> Result<(), String> {
        if let Some(background) = command.strip_suffix('&') {
            let log = fs::File::create(self.dir.join(&format!("log.{}", self.background.len())));
            let log = log.map_err(|error| format!("make a log: {error}"))?;
            let both = log.try_clone().map_err(|error| format!("duplicate a file: {error}"))?;
            let mut command = self.command(&format!("exec {background}"));
            self.background.push(spawn(command.stdin(Stdio::null()).stdout(log).stderr(both)));
            return Ok(());
        }
        let outcome = self.run(command);
        match said {
            Some(said) if printed::is_like(&outcome.stdout, said) => Ok(()),
            Some(said) => Err(format!("`{command}` shall print\n{said}and printed\n{}", outcome.stdout)),
            None if outcome.code().to_string() == code => Ok(()),
            None => Err(format!("must end with {code}{outcome}")),
        }
    }

    fn wait(&self, meanwhile: &Meanwhile) -> Result<(), String> {
        let Some(until) = &meanwhile.until else { return Ok(()) };
        eventually(until, SECOND * 10, || {
            let outcome = self.run(until);
            if outcome.status.success() { Ok(()) } else { Err(format!("{outcome}\n{}", self.logs())) }
        });
        Ok(())
    }

    fn logs(&self) -> String {
        let mut logs = String::new();
        for number in 0..self.background.len() {
            let log = fs::read_to_string(self.dir.join(&format!("log.{number}"))).unwrap_or_default();
            writeln!(logs, "in the background, {number}:\n{log}").expect("a String takes all");
        }
        logs
    }
}

/// Without the comment for readers.
fn bare(command: &str) -> &str {
    command.split_once("  #").map_or(command, |(bare, _)| bare).trim()
}

/// How it shall end.
fn code(command: &str) -> &str {
    let after = command.split_once("exit code ").map_or("0", |(_, after)| after);
    after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default()
}

impl Drop for Site {
    fn drop(&mut self) {
        // The process that everything else here lives with.
        drop(self.holder.take());
        for mut child in self.background.drain(..) {
            if let Err(error) = child.wait() {
                eprintln!("wait for {}: {error}", child.id());
            }
        }
    }
}
