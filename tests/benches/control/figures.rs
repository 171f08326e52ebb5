//! Times, and what is told of many of them.

use std::time::Instant;

/// What comes of some work, and how many milliseconds it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1e3)
}

/// Of milliseconds: the median, the hundredth, the largest.
pub(crate) fn spread(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    let at = |part: f64| all[((all.len() - 1) as f64 * part).round() as usize];
    (at(0.5), at(0.99), at(1.0))
}
