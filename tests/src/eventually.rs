//! The only place that waits by looking again. Elsewhere a test waits for an event by blocking on it.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use crate::scale::patience;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Between two things that are done now and then.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` gives `Ok`, and prints how long that took. `what` is what must come to pass; `figure` is
/// how long the specification gives it. A figure is no limit but a guard against hanging: [`patience`] times as
/// much may pass. What `look` saw last is in the message when it does.
#[track_caller]
pub fn eventually<T, E: Debug>(what: &str, figure: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let begin = Instant::now();
    let limit = figure * patience();
    loop {
        match look() {
            Ok(value) => {
                println!("{what}: after {:?} (figure: {figure:?})", begin.elapsed());
                return value;
            }
            Err(seen) if begin.elapsed() > limit => {
                panic!("not within {limit:?}: {what}; seen last: {seen:#?}")
            }
            Err(_) => pause(PAUSE),
        }
    }
}

/// Does something now and then, for `times` intervals of 20 ms however long it takes each time, so that a process that should
/// rest has the time to show that it does not. Returns how much time went by.
pub fn at_intervals(times: u32, mut act: impl FnMut()) -> Duration {
    let begin = Instant::now();
    let length = INTERVAL * times;
    while begin.elapsed() < length {
        act();
        pause(INTERVAL);
    }
    begin.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "the one place that may")]
fn pause(length: Duration) {
    thread::sleep(length);
}
