//! How much. Virtual machines without hardware support are some twenty times slower, and run the same tests.

use std::env;

/// `REDIRECTOR_TEST_SCALE=small` asks for less, `soak` for more.
fn is(scale: &str) -> bool {
    env::var_os("REDIRECTOR_TEST_SCALE").is_some_and(|asked| asked == scale)
}

fn is_small() -> bool {
    is("small")
}

/// Numbered cases, from 1 without an end, of which a test tries so many as it finds: with `soak` each, else every tenth. Tests
/// that begin with different ones (1 to 10) try different tenths.
pub fn numbers(first: usize) -> impl Iterator<Item = usize> {
    let (first, step) = if is("soak") { (1, 1) } else { (first, 10) };
    (first..).step_by(step)
}

/// What a test does so often as this: in virtual machines, at each change, and in a soak.
fn scaled<T>(small: T, usual: T, soak: T) -> T {
    if is_small() {
        small
    } else if is("soak") {
        soak
    } else {
        usual
    }
}

/// What a bulk transfer carries each way, in bytes: 256 MiB, small 64 MiB, soak 1 GiB.
#[must_use]
pub fn bulk() -> u64 {
    scaled(64 << 20, 256 << 20, 1 << 30)
}

/// Connections one after the other: 1,000, soak 10,000.
#[must_use]
pub fn many() -> usize {
    scaled(1_000, 1_000, 10_000)
}

/// Generated cases: 200, small 40, soak 2,000.
#[must_use]
pub fn cases() -> u32 {
    scaled(40, 200, 2_000)
}

/// Inputs of a parser: 2,000, small 100, soak 100,000.
#[must_use]
pub fn inputs() -> u32 {
    scaled(100, 2_000, 100_000)
}

/// How often a rule is changed while others use it: 100 times, small 20, soak 1,000.
#[must_use]
pub fn very_often() -> usize {
    scaled(20, 100, 1_000)
}

/// How often something is changed while others use it: 20 times, soak 100.
#[must_use]
pub fn often() -> usize {
    scaled(20, 20, 100)
}

/// Containers that start and go at once: 10, soak 50.
#[must_use]
pub fn containers() -> usize {
    scaled(10, 10, 50)
}

/// How many times the figure of a specification may pass before a test gives up: 10 times, small 40. Only the
/// machine is slower there, and a guard against hanging must not measure that.
#[must_use]
pub fn patience() -> u32 {
    if is_small() { 40 } else { 10 }
}

/// How much later something is cut off each time that it is: by 1, small by 10.
#[must_use]
pub fn step() -> u32 {
    if is_small() { 10 } else { 1 }
}
