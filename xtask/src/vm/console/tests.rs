//! Consoles as machines left them, and what must follow.

use std::time::Duration;

use super::*;

const LIMIT: Duration = Duration::from_secs(240);

const STARTED: &str = "\r\nredirector-vm: started on 6.18.15+deb13-cloud-amd64\r\n";
const TESTING: &str = "\r\nredirector-vm: testing\r\n\r\nrunning 3 tests\r\n";
const ONE_TEST: &str = "test harness::a_namespace_dies_when_nothing_of_the_harness_is_open_in_it ... ok\r\n";
const POWER_DOWN: &str = "[    5.604705] reboot: Power down\r\n";
const NO_INIT: &str = "[    1.9] No filesystem could mount root, tried: \r\n\
    [    1.93] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n\
    [    1.94] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 5.10.0-46-cloud-amd64 #1\r\n";
const INIT_DIED: &str =
    "[    2.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n";

fn exit() -> End {
    End::Exit("exit status: 0".into())
}

/// What follows, whatever the pieces in which it comes.
fn conclude(pieces: &[&str], end: &End) -> Verdict {
    let all = pieces.concat();
    let verdicts = [1, 7, 4096].map(|size| {
        let mut console = Console::new();
        all.as_bytes().chunks(size).for_each(|piece| console.read(piece));
        console.conclude(end.clone()).verdict
    });
    assert_eq!(verdicts[0], verdicts[1]);
    assert_eq!(verdicts[0], verdicts[2]);
    let [verdict, ..] = verdicts;
    verdict
}

#[test]
fn tests_that_pass_are_a_pass() {
    let console = [STARTED, TESTING, ONE_TEST, "\r\nredirector-vm: passed\r\n", POWER_DOWN];
    assert_eq!(conclude(&console, &exit()), Verdict::Passed);
    // Also when the machine does not find the switch.
    assert_eq!(conclude(&console[..4], &End::Overtime(LIMIT)), Verdict::Passed);
}

#[test]
fn a_test_that_panics_is_a_failure() {
    let console = [
        STARTED,
        TESTING,
        "test relay::bytes_arrive ... FAILED\r\n",
        "thread 'relay::bytes_arrive' panicked at tests/it/relay.rs:1:1:\r\n",
        "\r\nredirector-vm: failed: exit status: 101\r\n",
        POWER_DOWN,
    ];
    assert_eq!(conclude(&console, &exit()), Verdict::Failed("exit status: 101".into()));
}

#[test]
fn a_test_that_hangs_is_a_hang() {
    let console =
        [STARTED, TESTING, ONE_TEST, "test relay::bytes_arrive has been running for over 60 seconds\r\n"];
    assert_eq!(conclude(&console, &End::Silence(LIMIT)), Verdict::Hung(Stage::Tests, LIMIT));
    assert_eq!(conclude(&console, &End::Overtime(LIMIT)), Verdict::Overtime(Stage::Tests, LIMIT));
}

#[test]
fn a_kernel_that_never_says_anything_has_not_booted() {
    assert!(matches!(conclude(&[], &End::Silence(LIMIT)), Verdict::NotBooted(_)));
    assert!(matches!(conclude(&[], &End::Exit("exit status: 1".into())), Verdict::NotBooted(_)));
}

#[test]
fn a_kernel_that_finds_no_init_has_not_booted() {
    let Verdict::NotBooted(line) = conclude(&[NO_INIT], &exit()) else { panic!("not booted") };
    assert_eq!(line, "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)");
}

#[test]
fn a_panic_counts_whatever_was_said_before() {
    let panicked = |console: &[&str]| match conclude(console, &exit()) {
        Verdict::Panicked(stage, _) => stage,
        other => panic!("{other:?}"),
    };
    assert_eq!(panicked(&[STARTED, INIT_DIED]), Stage::Preparation);
    assert_eq!(panicked(&[STARTED, TESTING, ONE_TEST, INIT_DIED]), Stage::Tests);
    assert_eq!(panicked(&[STARTED, TESTING, "\r\nredirector-vm: passed\r\n", INIT_DIED]), Stage::Tests);
    // In the middle of what a test says.
    assert_eq!(panicked(&[STARTED, TESTING, "test relay::bytes_arrive ... ", INIT_DIED]), Stage::Tests);
}

#[test]
fn a_machine_that_ends_without_a_verdict_died() {
    let how = "QEMU ended: exit status: 0".to_owned();
    assert_eq!(conclude(&[STARTED, POWER_DOWN], &exit()), Verdict::Died(Stage::Preparation, how.clone()));
    assert_eq!(conclude(&[STARTED, TESTING, ONE_TEST], &exit()), Verdict::Died(Stage::Tests, how));
}

#[test]
fn a_machine_that_could_not_run_the_tests_says_why() {
    let console = [STARTED, "\r\nredirector-vm: broken: insert the module `veth`: ENOEXEC\r\n", POWER_DOWN];
    assert_eq!(conclude(&console, &exit()), Verdict::Broken("insert the module `veth`: ENOEXEC".into()));
}

#[test]
fn what_a_test_prints_is_no_verdict() {
    let console = [STARTED, TESTING, "  stdout: redirector-vm: passed\r\n", POWER_DOWN];
    assert!(matches!(conclude(&console, &exit()), Verdict::Died(Stage::Tests, _)));
}

#[test]
fn only_a_pass_is_called_one() {
    let others = [
        Verdict::Failed("exit status: 101".into()),
        Verdict::Broken("insert".into()),
        Verdict::Panicked(Stage::Tests, PANIC.into()),
        Verdict::NotBooted("QEMU ended".into()),
        Verdict::Died(Stage::Tests, "QEMU ended".into()),
        Verdict::Hung(Stage::Tests, LIMIT),
        Verdict::Overtime(Stage::Tests, LIMIT),
    ];
    let shown: std::collections::BTreeSet<_> = others.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), others.len());
    assert!(shown.iter().all(|text| !text.contains("passed")));
}

#[test]
fn what_the_harness_counted_and_what_did_not_apply_is_reported() {
    let mut console = Console::new();
    let lines = [
        STARTED,
        TESTING,
        "skipped by table: model::one: needs TestRun\r\n",
        "test model::two ... skipped by table: model::two: needs TestRun\r\n",
        "test result: FAILED. 190 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 117.48s\r\n",
        "\r\nredirector-vm: failed: exit status: 101\r\n",
    ];
    lines.iter().for_each(|line| console.read(line.as_bytes()));
    let shown = console.conclude(exit()).to_string();
    assert_eq!(shown, "tests failed: exit status: 101 (FAILED. 190 passed; 1 failed; 2 skipped by table)");
}
