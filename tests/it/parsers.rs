//! Whatever bytes a parser gets: it neither panics nor hangs; what it refuses it says why, in one line; what it accepts it
//! writes so that it reads the same again.
//!
//! Bytes are generated near to good examples: by chance alone no document gets past its first bracket.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    str::FromStr,
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestRunner},
};
use redirector::{
    config::{
        Destination, FlowSpec, Interface, Label, Match, PortSet, RuleName, Source, Span, Target,
        file::{ConfigFile, to_toml},
        has_rules, rules_of,
    },
    control::{ApplyRequest, AttachRequest, Code, DetachRequest, Error, ExplainRequest, LeaseRequest},
};
use redirector_tests::scale;
use serde_json::{Value, json};

/// What the languages here are made of, and what has surprised parsers elsewhere.
const WORDS: &str = ": / [ ] * - , = \" ' { } \\ # . % @ -> tcp udp any tcp:80 65535 65536 0 -1 00 1e9 18446744073709551616 \
    0x10 :: ::ffff:1.2.3.4 fe80::1%lo 10.0.0.0/8 /33 127.0.0.1 [::1]:80 drop original unix:/a path:/proc/1/ns/net docker:a \
    pid:1 5s null true [[namespace]]";

/// White space, and characters that a terminal or an editor obeys.
const UNSEEN: [&str; 8] =
    [" ", "\t", "\n", "\r\n", "\0", "\u{feff}", "\u{1b}[31m", "\u{fc}\u{1f980}\u{202e}"];

fn piece() -> impl Strategy<Value = &'static str> {
    select(WORDS.split(' ').filter(|word| !word.is_empty()).chain(UNSEEN).collect::<Vec<_>>())
}

#[derive(Clone, Debug)]
enum Edit {
    Remove(Index, Index),
    Repeat(Index, Index),
    Insert(Index, &'static str),
    Set(Index, u8),
    Cut(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        1 => (at(), at()).prop_map(|(from, length)| Edit::Remove(from, length)),
        1 => (at(), at()).prop_map(|(from, length)| Edit::Repeat(from, length)),
        4 => (at(), piece()).prop_map(|(place, piece)| Edit::Insert(place, piece)),
        1 => (at(), any::<u8>()).prop_map(|(place, byte)| Edit::Set(place, byte)),
        1 => at().prop_map(Edit::Cut),
    ]
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // One more than there are: an end is a place too.
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Remove(from, length) => {
                let from = place(from, bytes);
                let length = length.index((bytes.len() - from).min(16) + 1);
                bytes.drain(from..from + length);
            }
            Self::Repeat(from, length) => {
                let from = place(from, bytes);
                let length = length.index((bytes.len() - from).min(64) + 1);
                let again = bytes[from..from + length].to_vec();
                bytes.splice(from..from, again);
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                bytes.splice(at..at, piece.bytes());
            }
            Self::Set(at, byte) => {
                let at = place(at, bytes);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
        }
    }
}

/// Bytes that are an example with some edits, or nothing like one.
fn near(examples: Vec<String>) -> impl Strategy<Value = Vec<u8>> {
    let edited = (select(examples), vec(edit(), 0..6)).prop_map(|(example, edits)| {
        let mut bytes = example.into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        bytes
    });
    let pieces = vec(piece(), 0..12).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![12 => edited, 2 => pieces, 1 => vec(any::<u8>(), 0..64)]
}

/// Texts near to these. Bytes that are no UTF-8 never get to a parser of texts.
fn text_near(examples: &[&str]) -> impl Strategy<Value = String> + use<> {
    near(examples.iter().map(|one| (*one).to_owned()).collect())
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a check on some inputs, and asserts that some were accepted and some refused: `check` gives which.
#[track_caller]
fn check<S: Strategy>(inputs: S, check: impl Fn(&S::Value) -> Result<bool, TestCaseError>) {
    let seen = std::cell::RefCell::new(BTreeMap::<bool, u32>::new());
    let config = Config { cases: scale::inputs(), failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&inputs, |input| {
        let accepted = check(&input)?;
        *seen.borrow_mut().entry(accepted).or_default() += 1;
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // Else nothing was tried but the first bracket.
    let seen = seen.into_inner();
    assert!(seen.len() == 2 && seen.values().all(|count| *count > scale::inputs() / 100), "{seen:?}");
}

/// A message is one line for people, and shows nothing that a terminal takes for a command.
fn is_a_line(message: &str) -> Result<(), TestCaseError> {
    prop_assert!(!message.trim().is_empty());
    prop_assert!(!message.chars().any(char::is_control), "{message:?}");
    Ok(())
}

#[track_caller]
fn text<T>(examples: &[&str])
where
    T: FromStr<Err: Display> + Display + PartialEq + Debug,
{
    for example in examples {
        assert!(example.parse::<T>().is_ok(), "{example:?}");
    }
    check(text_near(examples), |text| match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            prop_assert_eq!(shown.parse::<T>().map_err(|error| error.to_string()), Ok(value), "{}", shown);
            Ok(true)
        }
        Err(error) => is_a_line(&error.to_string()).map(|()| false),
    });
}

#[track_caller]
fn document<T: serde::Serialize + serde::de::DeserializeOwned>(examples: &[Value]) {
    let texts: Vec<_> = examples.iter().map(Value::to_string).collect();
    for text in &texts {
        serde_json::from_str::<T>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    }
    check(near(texts), |bytes| match serde_json::from_slice::<T>(bytes) {
        Ok(request) => {
            let shown = serde_json::to_vec(&request).expect("JSON");
            let again = serde_json::from_slice::<T>(&shown);
            let again = again.map_err(|error| {
                TestCaseError::fail(format!("{error}: {request}", request = String::from_utf8_lossy(&shown)))
            })?;
            prop_assert_eq!(serde_json::to_vec(&again).expect("JSON"), shown);
            Ok(true)
        }
        // As the daemon answers it.
        Err(error) => is_a_line(&Error::new(Code::Usage, error.to_string()).message).map(|()| false),
    });
}

#[test]
fn a_match_is_refused_or_reads_the_same_again() {
    text::<Match>(&[
        "tcp:80",
        "udp:*",
        "any:53,100-200",
        "tcp:10.0.0.0/8:443",
        "tcp:[fd00::/8]:1-65535",
        "tcp:[::1]:*",
    ]);
}

#[test]
fn a_set_of_ports_is_refused_or_reads_the_same_again() {
    text::<PortSet>(&["*", "80", "1-65535", "80,443,8000-8099"]);
}

#[test]
fn a_source_is_refused_or_reads_the_same_again() {
    text::<Source>(&["10.0.0.0/8", "0.0.0.0/0", "fd00::1", "::/0", "192.0.2.7"]);
}

#[test]
fn a_destination_is_refused_or_reads_the_same_again() {
    text::<Destination>(&[
        "original",
        "drop",
        "reject",
        "pass",
        "127.0.0.1:80",
        "[::1]:*",
        "host.example:8080",
        "unix:/run/a b.sock",
        "docker:proxy/127.0.0.1:8080",
        "netns:web/[::1]:80",
    ]);
}

#[test]
fn a_target_is_refused_or_reads_the_same_again() {
    text::<Target>(&["netns:web", "pid:1", "path:/run/netns/a", "docker:web", "podman:a", "cookie:4148"]);
}

#[test]
fn a_flow_is_refused_or_reads_the_same_again() {
    text::<FlowSpec>(&[
        "tcp 10.0.0.1:1000 -> 10.0.0.2:80",
        "udp [fd00::1]:1 -> [fd00::2]:53 dev eth0",
        "tcp 127.0.0.1:1000 -> 127.0.0.1:80 dev lo",
    ]);
}

#[test]
fn names_labels_and_spans_are_refused_or_read_the_same_again() {
    text::<RuleName>(&["web", "rule-1", "a.b_c"]);
    text::<Interface>(&["eth0", "lo", "eth0.100"]);
    text::<Label>(&["a", "log.collect=true", "a=b=c"]);
    text::<Span>(&["5s", "1ms", "1h 2m 3s", "0s", "24days"]);
}

#[test]
fn labels_of_a_container_say_rules_or_why_not() {
    let keys = text_near(&[
        "redirector.rule.web.match",
        "redirector.rule.web.to",
        "redirector.rule.web.from",
        "redirector.enable",
        "other",
        "redirector.rule.web.priority",
        "redirector.rule.web.idle_timeout",
        "redirector.rule.web.coexist",
    ]);
    let values =
        text_near(&["tcp:80", "tcp:80 tcp:81", "127.0.0.1:80", "10.0.0.0/8", "true", "5s", "-7", "drop"]);
    let good = |(key, value): (&str, &str)| (format!("redirector.rule.web.{key}"), value.to_owned());
    let labels = (vec((keys, values), 0..3), any::<bool>()).prop_map(move |(some, with_good)| {
        let rule = [("match", "tcp:80"), ("to", "127.0.0.1:80")].map(good);
        let rule = rule.into_iter().filter(|_| with_good);
        some.into_iter().chain(rule).collect::<BTreeMap<_, _>>()
    });
    let found_by = "redirector.enable=true".parse::<Label>().expect("a label");
    check(labels, |labels| match rules_of(labels, std::slice::from_ref(&found_by), &[]) {
        Ok(rules) => {
            prop_assert_eq!(!rules.is_empty(), has_rules(labels));
            Ok(true)
        }
        Err(wrong) => {
            prop_assert!(!wrong.is_empty());
            wrong.iter().try_for_each(|why| is_a_line(why))?;
            Ok(false)
        }
    });
}

#[test]
fn a_configuration_file_is_refused_line_by_line_or_reads_the_same_again() {
    let examples = [
        include_str!("../../docs/examples/debugging.toml"),
        include_str!("../../docs/examples/discovery.toml"),
        include_str!("../../docs/examples/log-collection.toml"),
        include_str!("../../docs/examples/security-audit.toml"),
        include_str!("../../docs/examples/transparent-proxy.toml"),
        "[daemon]\n[[namespace]]\ntarget=\"netns:a\"\n[[namespace.rule]]\nmatch=[\"tcp:80\"]\nto=[\"drop\"]\n",
        "namespace = [{target = 'netns:a', rule = [{match = ['tcp:80'], to = ['127.0.0.1:1']}]}]",
    ];
    for example in examples {
        ConfigFile::parse(example.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"));
    }
    // A value that serde repeats as it is.
    let repeated = examples[5].replace("to=[\"drop\"]", "to=[\"drop\"]\non_unavailable=\"\\t\\u001b[31m\"");
    for problem in ConfigFile::parse(repeated.as_bytes()).expect_err("it is not known") {
        is_a_line(&problem.message).expect("a line");
    }
    check(near(examples.map(str::to_owned).to_vec()), |bytes| match ConfigFile::parse(bytes) {
        Ok(file) => {
            let text = to_toml(&file.namespaces, &file.discover);
            let again = ConfigFile::parse(text.as_bytes());
            let again = again.map_err(|problems| TestCaseError::fail(format!("{problems:?}: {text}")))?;
            prop_assert_eq!(
                (&again.namespaces, &again.discover),
                (&file.namespaces, &file.discover),
                "{}",
                text
            );
            Ok(true)
        }
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            let lines = bytes.split(|byte| *byte == b'\n').count();
            for problem in problems {
                is_a_line(&problem.message)?;
                problem.hint.as_deref().map_or(Ok(()), is_a_line)?;
                prop_assert!((1..=lines).contains(&problem.place.line), "{:?}", problem);
                prop_assert!(problem.place.column >= 1, "{:?}", problem);
            }
            Ok(false)
        }
    });
}

#[test]
fn a_request_of_the_hand_off_is_refused_or_reads_the_same_again() {
    document::<LeaseRequest>(&[
        json!({"target": "netns:web", "match": ["tcp:80"]}),
        json!({"target": "pid:1", "match": ["tcp:80", "tcp:[::1]:*"], "from": ["10.0.0.0/8"], "except": ["tcp:81"],
            "interface": ["eth0"], "priority": -7, "name": "web", "on_unavailable": "reject", "coexist": true,
            "host_netns": false, "kill_after": "5s", "listen_as": 80, "user": 65534}),
    ]);
}

#[test]
fn a_request_of_the_api_is_refused_or_reads_the_same_again() {
    let rule = json!({"name": "web", "match": ["tcp:80"], "to": ["127.0.0.1:80"], "connect_timeout": "5s", "priority": 3});
    let rules = json!([rule, {"match": ["any:*"], "to": ["drop"], "from": ["::/0"]}]);
    document::<AttachRequest>(&[json!({"target": "netns:web", "rule": rule, "dry_run": true})]);
    document::<DetachRequest>(&[
        json!({"target": "netns:web"}),
        json!({"target": "cookie:7", "rule": "web"}),
    ]);
    document::<ExplainRequest>(&[
        json!({"target": "netns:a", "flow": "tcp 10.0.0.1:1 -> 10.0.0.2:80", "all_reasons": true}),
    ]);
    document::<ApplyRequest>(&[
        json!({"namespaces": [{"target": "netns:a", "rule": rules}], "dry_run": false}),
        json!({"discover": [{"docker": {"label": "a=b"}, "rule": [rule]}]}),
    ]);
}
