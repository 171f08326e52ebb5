//! What helps whoever typed something wrong: the line that was meant, or what is there.

use std::process::Command;

use redirector_tests::{
    cli::error,
    command,
    daemon::binary,
    dir::Dir,
    fake_engine::{ID, engine, json, version},
    world::World,
};

/// What stands after `hint: `.
#[track_caller]
fn hint(outcome: &command::Outcome) -> String {
    let hint = outcome.stderr.lines().find_map(|line| line.strip_prefix("hint: "));
    hint.unwrap_or_else(|| panic!("must have a hint{outcome}")).to_owned()
}

/// The line that is told can be typed as it is, and does what was meant.
#[test]
fn the_line_that_is_suggested_works_as_it_is() {
    let world = World::new();
    let target = world.target();
    for (typed, result) in [
        (format!("atach {target} 80 reject --name a"), "attached"),
        (format!("attach {target} tcp:80 reject --name a"), "unchanged"),
        (format!("add {target} --mach TCP:80 --to deny --name a"), "unchanged"),
        (format!("attach tcp:81 {target} --to REJECT --name b"), "attached"),
        (format!("attach {target} --match 'tcp:82' --to pass --name c --interface 'not lo' --dryrun"), "dry"),
        (format!("rm {target} --rule b"), "detached"),
        (format!("detach {target} a"), "detached"),
    ] {
        let run = |line: &str| {
            let line = line.replacen("redirector", &binary().display().to_string(), 1);
            command::run(
                Command::new("sh").args(["-c", &line]).env("REDIRECTOR_SOCKET", world.daemon.socket()),
            )
        };
        let outcome = run(&format!("redirector {typed}"));
        error(&outcome, 2);
        let told = hint(&outcome);
        let line = told.strip_prefix("did you mean `").and_then(|told| told.strip_suffix("`?"));
        let line = line.unwrap_or_else(|| panic!("must be a line: {told}{outcome}"));
        let outcome = run(line).success();
        assert!(result == "dry" || outcome.stdout.starts_with(result), "{line}{outcome}");
    }
}

#[test]
fn a_name_that_is_nearly_one_is_answered_with_it() {
    let world = World::new();
    world.steer("http", "tcp:80", "reject");
    world.steer("ssh", "tcp:22", "reject");
    let target = world.target();
    for (words, code, part) in [
        (vec!["detach", &*target, "--rule", "htpp"], 3, "did you mean `http`?"),
        (vec!["detach", &target, "--rule", "xyz-q"], 3, "there are: http, ssh"),
        (vec!["list", &*format!("{target}b")], 3, &*format!("did you mean `{target}`?")),
    ] {
        let outcome = world.cli().run(&words);
        error(&outcome, code);
        assert!(hint(&outcome).contains(part), "{outcome}");
    }
    // `--name` is what `attach` calls it.
    world.cli().json(&["detach", &target, "--name", "ssh"]);
}

/// The shell takes `>` for a redirection, and leaves a file.
#[test]
fn a_flow_that_the_shell_has_cut_is_told_whole() {
    let (world, dir) = (World::new(), Dir::new());
    let line =
        format!("{} explain {} tcp 10.77.0.2:4000 -> 10.77.0.1:80", binary().display(), world.target());
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("REDIRECTOR_SOCKET", world.daemon.socket()).current_dir(dir.path());
    let outcome = command::run(&mut command);
    error(&outcome, 2);
    assert!(dir.join("10.77.0.1:80").exists());
    let told = hint(&outcome);
    let flow = format!("`redirector explain {} 'tcp 10.77.0.2:4000 -> 10.77.0.1:80'`", world.target());
    assert!(told.contains(&flow) && told.contains("10.77.0.1:80` for a file"), "{outcome}");
}

/// So does `*`, where there are files of such names.
#[test]
fn a_star_that_the_shell_has_replaced_is_told() {
    let dir = Dir::new();
    for name in ["tcp:1", "tcp:2"] {
        std::fs::write(dir.join(name), "").unwrap();
    }
    let line = format!("{} attach netns:x --match tcp:* --to pass", binary().display());
    let outcome = command::run(Command::new("sh").args(["-c", &line]).current_dir(dir.path()));
    error(&outcome, 2);
    assert!(hint(&outcome).contains("--match 'tcp:*'"), "{outcome}");
}

/// What bash offers for a line that ends at the cursor.
fn bash_completes(world: &World, dir: &Dir, line: &str) -> Vec<String> {
    let script = dir.join("completions");
    std::fs::write(&script, world.cli().run(&["completions", "bash"]).success().stdout).unwrap();
    let program = r#"
        source "$1"; COMP_LINE="$2"; COMP_POINT=${#2}; COMP_WORDBREAKS=$' \t\n:'
        COMP_WORDS=(redirector); COMP_CWORD=0
        _redirector_names redirector "" "" 2> /dev/null
        printf '%s\n' "${COMPREPLY[@]}""#;
    let line = line.replacen("redirector", &binary().display().to_string(), 1);
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", program, "bash"]).arg(&script).arg(&line).current_dir(dir.path());
    let docker = dir.join("docker");
    command.env("REDIRECTOR_SOCKET", world.daemon.socket()).env("REDIRECTOR_DOCKER_SOCKET", docker);
    let outcome = command::run(&mut command).success();
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_namespaces_containers_rules_and_files() {
    let (world, dir) = (World::new(), Dir::new());
    world.steer("http", "tcp:80", "reject");
    world.steer("https", "tcp:443", "reject");
    let list =
        format!(r#"[{{"Id":"{ID}","Names":["/shop"],"Labels":{{}}}},{{"Id":"{ID}","Names":["/sh$(op)"]}}]"#);
    engine(&dir.join("docker"), move |path| if path.ends_with("/version") { version() } else { json(&list) });
    for file in ["a.toml", "b.txt"] {
        std::fs::write(dir.join(file), "").unwrap();
    }
    let (target, name) = (world.target(), world.net.pod.name());
    let complete = |line: &str| bash_completes(&world, &dir, line);
    // Bash has taken the word apart at the colon, and wants what is behind it.
    assert!(complete(&format!("redirector attach netns:{}", &name[..5])).contains(&name));
    assert!(complete("redirector detach ").contains(&target));
    assert_eq!(complete("redirector exec docker:"), ["shop"], "and nothing that is no name of a container");
    assert_eq!(complete("redirector list ho"), ["host"]);
    assert_eq!(complete(&format!("redirector detach {target} --rule ")), ["http", "https"]);
    assert_eq!(complete(&format!("redirector detach {target} --rule https")), ["https"]);
    assert_eq!(complete("redirector apply "), ["a.toml"]);
    assert_eq!(complete("redirector run --config a"), ["a.toml"]);
    let script = world.cli().run(&["completions", "fish"]).success().stdout;
    std::fs::write(dir.join("script.fish"), script).unwrap();
    let bin = binary().parent().unwrap().display().to_string();
    let program = format!(
        "set -x PATH {bin} $PATH; source {}; complete -C 'redirector detach {target} --rule htt'",
        dir.join("script.fish").display()
    );
    let mut command = Command::new("fish");
    command.args(["--no-config", "-c", &program]).env("HOME", dir.path());
    let outcome = command::run(command.env("REDIRECTOR_SOCKET", world.daemon.socket())).success();
    let offered: Vec<_> = outcome.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(offered, ["http", "https"], "{outcome}");
}
