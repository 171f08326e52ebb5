//! Broken files: everything that is wrong is told at once, each with its place, and nothing is changed.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use redirector_tests::{
    cli::error,
    command::{Outcome, run, run_with_stdin},
    daemon::binary,
    dir::Dir,
    world::World,
};

/// Marks where a problem is to be told.
const MARK: char = '«';

/// A file with a mark before each problem, and a part of what is to be said of each, in their order.
type Broken<'a> = (&'a str, &'a [&'a str]);

const SYNTAX: &[Broken<'_>] = &[
    ("[[namespace«\n", &["unclosed array table"]),
    ("[[namespace]]\ntarget = «netns:a\n", &["a text stands in quotes"]),
    ("[[namespace]]\ntarget = \"netns:a«\n", &["a quote is missing"]),
    ("[[namespace]]\ntarget «\"netns:a\"\n", &["`=`"]),
    ("[[namespace]]\ntarget = \"netns:a\"\n«target = \"netns:b\"\n", &["duplicate key"]),
    ("[daemon]\n[«daemon]\n", &["duplicate key"]),
    ("«= 1\n", &["key"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\" «\"tcp:81\"]\nto = [\"pass\"]\n",
        &["comma"],
    ),
    ("[[namespace]]\ntarget = \"netns:a\" «x\n", &["newline"]),
    ("daemon = { max_connections = 1«\n", &["inline table"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"\n«to = [\"pass\"]\npriority = 3\n[[namespace]]\ntarget = \"web\"\n",
        &["comma"],
    ),
];

const KEYS: &[Broken<'_>] = &[
    ("«colour = \"red\"\n", &["unknown key `colour`"]),
    ("«include = \"other.toml\"\n", &["unknown key `include`"]),
    ("[«namespaces]\n", &["unknown key `namespaces`"]),
    ("[daemon]\n«sockets = \"/a\"\n«timeout = 3\n", &["unknown key `sockets`", "unknown key `timeout`"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n«targets = 1\n[[namespace.rule]]\n«matches = []\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n",
        &["unknown key `targets`", "unknown key `matches`"],
    ),
    (
        "«[[namespace]]\n[[namespace.rule]]\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n",
        &["missing field `target`"],
    ),
    ("«[[namespace]]\ntarget = \"netns:a\"\n", &["needs a rule"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n««[[namespace.rule]]\n",
        &["needs a match", "needs a destination"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\n«matchs = [\"tcp:80\"]\nto = [\"pass\"]\n",
        &["unknown key `matchs`"],
    ),
    ("«[[namespace]]\n«hots_netns = true\n", &["missing field `target`", "unknown key `hots_netns`"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nname = «[\"a\"]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n",
        &["`name`: expected a text, found a list"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n«[[namespace.rule]]\nmatch = [\"tcp:80\"]\n",
        &["needs a destination"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = «[]\nto = [\"pass\"]\n",
        &["needs a match"],
    ),
];

const DISCOVER: &[Broken<'_>] = &[
    ("«[[discover]]\n", &["needs `docker` or `podman`"]),
    ("«[discover]\ndocker = { label = \"a\" }\n", &["expected an array of tables"]),
    ("[[discover]]\n«dokcer = { label = \"a\" }\n", &["unknown key `dokcer`"]),
    ("[[discover]]\ndocker = «\"a\"\n", &["`docker`: expected a table, found the text"]),
    (
        "[[discover]]\ndocker = «{}\npodman = { «lable = \"a\" }\n",
        &["missing field `label`", "unknown key `lable`"],
    ),
    (
        "[[discover]]\ndocker = { label = «\"=a\" }\npodman = { label = «1 }\n",
        &["label `=a`: it has no key", "`podman`: expected a text, found the number"],
    ),
    (
        "[[discover]]\ndocker = { label = «\"a b\" }\nimage_labels = «1\n",
        &["white space", "`image_labels`: expected `true` or `false`"],
    ),
    (
        "[[discover]]\ndocker = { label = \"a\" }\nimage_labels = «true\n[[discover.rule]]\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n",
        &["no label says any"],
    ),
    ("[[discover]]\ndocker = { label = \"a\" }\nunix = «[\"run/x\"]\n", &["`run/x` is no absolute path"]),
    (
        "[[discover]]\ndocker = { label = \"a\" }\nunix = «[\"/run/x\"]\n[[discover.rule]]\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n",
        &["no label says any"],
    ),
    (
        "[[discover]]\ndocker = { label = \"a\" }\n[[discover.rule]]\nmatch = [«\"tcp:0\"]\nto = [\"pass\"]\n«follow = true\n",
        &["port 0", "unknown key `follow`"],
    ),
    (
        "[[discover]]\ndocker = { label = \"a\" }\n[[discover.rule]]\nname = \"a\"\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n«[[discover.rule]]\nname = \"a\"\nmatch = [\"tcp:2\"]\nto = [\"pass\"]\n",
        &["rule `a`: this `[[discover]]` has a rule of that name already"],
    ),
    (
        "[[discover]]\npodman = { label = \"a\" }\n[[discover.rule]]\nmatch = [\"tcp:1\"]\nto = «[\"pid:1/127.0.0.1:1\"]\n«[[discover.rule]]\nto = [\"pass\"]\n",
        &["a process cannot be found again", "needs a match"],
    ),
];

const TYPES: &[Broken<'_>] = &[
    ("namespace = «1\n", &["expected an array of tables"]),
    ("«[namespace]\ntarget = 1\n", &["expected an array of tables, found table"]),
    ("daemon = «\"/run\"\n", &["expected a table"]),
    ("namespace = [«1, «\"a\"]\n", &["expected a table", "expected a table"]),
    ("[[namespace]]\ntarget = «1\n", &["`target`: expected a text, found the number"]),
    ("[[namespace]]\ntarget = \"docker:a\"\nfollow = «\"yes\"\n", &["`follow`: expected `true` or `false`"]),
    ("[[namespace]]\ntarget = \"netns:a\"\nhost_netns = «0\n", &["`host_netns`: expected `true` or `false`"]),
    ("[[namespace]]\ntarget = \"netns:a\"\nrule = «\"http\"\n", &["expected an array of tables"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = «\"tcp:80\"\nto = «\"pass\"\n",
        &["`match`: expected", "`to`: expected"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«80, \"tcp:81\", «true]\nto = [\"pass\"]\n",
        &["`match`: expected a text, found the number", "`match`: expected a text, found `"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nname = «1\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\npriority = «\"high\"\ncoexist = «1\n",
        &[
            "`name`: expected a text",
            "`priority`: expected a whole number",
            "`coexist`: expected `true` or `false`",
        ],
    ),
    (
        "[daemon]\nmax_connections = «\"many\"\ndrain_timeout = «30\n",
        &["`max_connections`", "`drain_timeout`"],
    ),
];

const RANGES: &[Broken<'_>] = &[
    ("[daemon]\nmax_connections = «0\n", &["`max_connections`: expected a whole number"]),
    ("[daemon]\nmax_connections = «-1\n", &["`max_connections`: expected a whole number"]),
    ("[daemon]\nmax_connections = «5000000000\n", &["`max_connections`: expected a whole number"]),
    ("[daemon]\ndrain_timeout = «\"25days\"\n", &["longer than 24 days"]),
    ("[daemon]\nlog_format = «\"xml\"\n", &["`log_format`: `xml` is none of `text`, `json`"]),
    (
        "[daemon]\nsocket = «\"run/a.sock\"\ndocker_socket = «\"\"\n",
        &["`socket`: the path is not absolute", "`docker_socket`"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\npriority = «3000000000\n",
        &["`priority`: expected a whole number"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«\"tcp:0\", «\"tcp:65536\", «\"tcp:9-1\"]\nto = [\"pass\"]\n",
        &["port 0", "65536", "9-1"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«\"tcp:10.0.0.0/33:80\", «\"tcp:[fd00::]/129:80\"]\nto = [\"pass\"]\n",
        &["/33", "/129"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"unix:/a\"]\nconnect_timeout = «\"0s\"\nidle_timeout = «\"1 fortnight\"\n",
        &["must be longer than 0", "time `1 fortnight`"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nname = «\"\"\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n[[namespace.rule]]\nname = «\"a b\"\nmatch = [\"tcp:81\"]\nto = [\"pass\"]\n",
        &["rule name ``", "rule name `a b`"],
    ),
];

const GRAMMAR: &[Broken<'_>] = &[
    ("[[namespace]]\ntarget = «\"web\"\n", &["did you mean `docker:web`"]),
    ("[[namespace]]\ntarget = «\"netns:a/b\"\n", &["no `/`"]),
    (
        "[[namespace]]\ntarget = «\"self\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n",
        &["whose namespace"],
    ),
    ("[[namespace]]\ntarget = «\"containerd:a\"\n", &["unknown kind"]),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«\"80\", «\"sctp:80\", «\"tcp:fd00::1:80\", «\"tcp:10.0.0.1/8:80\"]\nto = [\"pass\"]\n",
        &["protocol", "sctp", "needs brackets", "10.0.0.0/8"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [«\"docker:514\"]\nfrom = [«\"10.0.0.1/8\", «\"all\"]\nexcept = [«\"tcp:\"]\ninterface = [«\"a/b\"]\n",
        &["destination `docker:514`", "source `10.0.0.1/8`", "source `all`", "match `tcp:`", "interface"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [«\"10.0.0.1\"]\non_unavailable = «\"accept\"\n",
        &["destination `10.0.0.1`", "is none of `pass`, `reject`, `drop`"],
    ),
];

const CLASHES: &[Broken<'_>] = &[
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nname = \"r\"\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n«[[namespace.rule]]\nname = \"r\"\nmatch = [\"tcp:81\"]\nto = [\"pass\"]\n",
        &["has a rule of that name already"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nname = \"r\"\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n[[namespace]]\ntarget = \"netns:a\"\n«[[namespace.rule]]\nname = \"r\"\nmatch = [\"tcp:81\"]\nto = [\"pass\"]\n",
        &["has a rule of that name already"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\", «\"tcp:80\"]\nto = [\"pass\", «\"reject\"]\nfrom = [\"10.0.0.1\", «\"10.0.0.1/32\"]\n",
        &["is there twice", "one destination", "is there twice"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«\"udp:80\"]\nto = [\"10.0.0.1:80\"]\n",
        &["UDP cannot be taken"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [«\"tcp:[fd00::1]:80\"]\nfrom = [\"10.0.0.1\"]\nto = [\"pass\"]\n",
        &["no source is"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nexcept = [«\"tcp:81\"]\nto = [\"pass\"]\n[[namespace.rule]]\nmatch = [«\"tcp:80\"]\nexcept = [\"tcp:1-100\"]\nto = [\"pass\"]\n",
        &["nothing in common", "nothing is left"],
    ),
    (
        "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [«\"original\"]\ncoexist = true\n[[namespace.rule]]\nmatch = [\"tcp:81\"]\nto = [«\"handoff\"]\n",
        &["coexist", "destination `handoff`"],
    ),
    (
        "[[namespace]]\ntarget = \"pid:1\"\nfollow = «true\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"pass\"]\n",
        &["can be followed"],
    ),
    (
        "[[namespace]]\ntarget = \"docker:a\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = «[\"pid:1/127.0.0.1:80\"]\n",
        &["a process cannot be found again"],
    ),
];

/// The text without marks, and where they were.
fn places(marked: &str) -> (String, Vec<String>) {
    let (mut text, mut places) = (String::new(), Vec::new());
    for (number, line) in marked.split('\n').enumerate() {
        let mut column = 1;
        for character in line.chars() {
            if character == MARK {
                places.push(format!("{}:{column}", number + 1));
            } else {
                text.push(character);
                column += 1;
            }
        }
        text.push('\n');
    }
    text.pop();
    (text, places)
}

/// Places and messages of the problems that were told.
fn told(outcome: &Outcome, path: &str) -> Vec<(String, String)> {
    let prefix = format!("{path}:");
    let lines = outcome.stderr.lines().filter_map(|line| line.strip_prefix(&prefix));
    let errors = lines.filter_map(|line| line.split_once(": error: "));
    errors.map(|(place, message)| (place.to_owned(), message.to_owned())).collect()
}

#[test]
fn every_problem_of_a_broken_file_is_told_at_once_with_its_place() {
    let world = World::new();
    world.steer("there", "tcp:80", "reject");
    let before = world.cli().run(&["export"]).success().stdout;
    let dir = Dir::new();
    let groups = [SYNTAX, KEYS, DISCOVER, TYPES, RANGES, GRAMMAR, CLASHES];
    let broken: Vec<_> = groups.concat();
    assert!(broken.len() >= 55, "{}", broken.len());
    let mut wrong = Vec::new();
    for (number, (marked, parts)) in broken.iter().enumerate() {
        let (text, expected) = places(marked);
        let file = dir.join(&format!("{number}.toml"));
        fs::write(&file, &text).unwrap();
        let path = file.to_str().unwrap();
        let checked = world.cli().run(&["check", path]);
        let found = told(&checked, path);
        let said = found.len() == parts.len()
            && found.iter().zip(*parts).all(|((_, message), part)| message.contains(part));
        let at: Vec<_> = found.iter().map(|(place, _)| place.clone()).collect();
        if !said || at != expected || checked.code() != 2 {
            wrong.push(format!("--- {number}\n{text}\nexpected {expected:?} {parts:?}{checked}"));
        }
        let applied = world.cli().run(&["apply", path]);
        assert_eq!(applied.code(), 2, "{text}{applied}");
        assert_eq!(told(&applied, path), found, "check and apply say the same");
        assert_eq!(applied.stdout, "", "{applied}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.cli().run(&["export"]).success().stdout, before, "nothing is changed");
}

#[test]
fn a_table_with_too_many_problems_is_not_read_to_its_end_and_other_files_are_not_held_up() {
    let cli = redirector_tests::cli::Cli::new(Path::new("/nowhere"));
    let keys: String = (0..20_000).map(|number| format!("key{number} = 1\n")).collect();
    let numbers = vec!["1"; 20_000].join(", ");
    for (text, told) in [
        (format!("[daemon]\n{keys}"), 101),
        (
            format!(
                "[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rule]]\nto = [\"pass\"]\nmatch = [{numbers}]\n"
            ),
            20_000,
        ),
    ] {
        let outcome = run_with_stdin(&mut cli.command(&["check", "-", "--json"]), &text);
        assert_eq!(outcome.code(), 2, "{}", outcome.stderr);
        let checked: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(checked["problems"].as_array().unwrap().len(), told);
    }
}

/// How a file is made that is none, the exit code, and what is said.
type NoFile<'a> = (&'a str, fn(&Path), i32, &'a str);

#[test]
fn what_is_no_configuration_file_is_refused_by_name() {
    let world = World::new();
    world.steer("there", "tcp:80", "reject");
    let before = world.cli().run(&["export"]).success().stdout;
    let dir = Dir::new();
    let cases: &[NoFile<'_>] = &[
        ("absent", |_| {}, 1, "No such file"),
        ("directory", |path| fs::create_dir(path).unwrap(), 1, "Is a directory"),
        ("a-file/below", |path| fs::write(path.parent().unwrap(), "").unwrap(), 1, "Not a directory"),
        ("loop", |path| symlink(path, path).unwrap(), 1, "symbolic links"),
        ("large", |path| File::create(path).unwrap().set_len(100 << 20).unwrap(), 2, "larger than 16 MiB"),
        ("endless", |path| symlink("/dev/zero", path).unwrap(), 2, "larger than 16 MiB"),
        (
            "binary",
            |path| fs::write(path, b"[daemon]\n\x7fELF\xff\xfe").unwrap(),
            2,
            ":2:5: error: not a text in UTF-8",
        ),
        ("nul", |path| fs::write(path, "[daemon]\n\0").unwrap(), 2, ":2:2: error: "),
        ("deep", |path| fs::write(path, format!("a = {}", "[".repeat(100_000))).unwrap(), 2, ":1:"),
        ("image", |path| assert!(fs::copy("/proc/self/exe", path).unwrap() > 0), 2, "error: "),
    ];
    for (name, make, code, part) in cases {
        let path = dir.join(name);
        make(&path);
        let path = path.to_str().unwrap();
        // Of a directory the files are applied, and there are none in this one.
        let commands = if *name == "directory" { &["check"][..] } else { &["check", "apply"] };
        for command in commands {
            let outcome = world.cli().run(&[command, path]);
            assert_eq!(outcome.code(), *code, "{name}{outcome}");
            assert!(outcome.stderr.contains(part) && outcome.stderr.contains(path), "{name}{outcome}");
            assert_eq!(outcome.stdout, "", "{name}{outcome}");
        }
    }
    assert_eq!(world.cli().run(&["export"]).success().stdout, before, "nothing is changed");
}

#[test]
fn a_file_that_another_user_may_not_read_is_refused_to_him() {
    let dir = Dir::new();
    let file = dir.join("secret.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = file.to_str().unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]).arg(binary()).args(["check", path]);
    let said = error(&run(&mut command), 1);
    assert!(said.contains("Permission denied") && said.contains(path), "{said}");
}
