//! What the kernel says of TCP connections, by `ss` in the namespace of this thread.

use std::process::Command;

use crate::command::must;

fn established(options: &str, filter: &str) -> String {
    must(Command::new("ss").args([options, "state", "established", filter])).stdout
}

/// Bytes that the peers have acknowledged, of each established connection that the filter takes.
#[track_caller]
#[must_use]
pub fn acknowledged(filter: &str) -> Vec<u64> {
    let shown = established("-Htin", filter);
    let counts = shown.split_whitespace().filter_map(|word| word.strip_prefix("bytes_acked:"));
    // The SYN is one of them.
    counts.map(|count| count.parse::<u64>().expect("a number of bytes") - 1).collect()
}

/// Bytes that the peers have not acknowledged, of each established connection that the filter takes.
#[track_caller]
#[must_use]
pub fn unacknowledged(filter: &str) -> Vec<u64> {
    column(&established("-Htn", filter), 1)
}

/// Bytes that nobody has read, of each established connection that the filter takes.
#[track_caller]
#[must_use]
pub fn unread(filter: &str) -> Vec<u64> {
    column(&established("-Htn", filter), 0)
}

/// How many established connections that the filter takes wait for their peers to have room, and have asked in vain: the
/// first question, after 200 ms, still sends what there is room for (`tcp_write_wakeup`), and each later one comes after
/// twice the time.
#[track_caller]
#[must_use]
pub fn blocked(filter: &str) -> usize {
    let shown = established("-Htno", filter);
    let left = shown.lines().filter_map(|line| line.split_once("timer:(persist,")?.1.split_once(','));
    let asked = |left: &str| match left.strip_suffix("ms").map(str::parse::<f64>) {
        Some(Ok(milliseconds)) => milliseconds > 250.0,
        _ => true,
    };
    left.filter(|(left, _)| asked(left)).count()
}

fn column(shown: &str, index: usize) -> Vec<u64> {
    let words = shown.lines().filter_map(|line| line.split_whitespace().nth(index));
    words.map(|word| word.parse().expect("a number of bytes")).collect()
}
