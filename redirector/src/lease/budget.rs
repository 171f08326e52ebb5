//! What one look at other processes may cost: their files must not be the measure of it.

use std::time::Duration;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// Files of one process that are looked at. A server with as many is one in thousands.
const OF_PROCESS: u32 = 65_536;

/// Files and threads of all processes.
const OF_ALL: u32 = 1 << 20;

/// Time of a processor.
const TIME: Duration = Duration::from_secs(2);

/// Steps of which the time is asked for once.
const STEPS: u32 = 256;

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Budget {
    of_process: u32,
    of_all: u32,
    until: Duration,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self::of(OF_ALL)
    }

    /// With so many steps.
    pub(crate) fn of(steps: u32) -> Self {
        Self { of_process: OF_PROCESS, of_all: steps, until: time_of_thread() + TIME }
    }

    /// The next process.
    pub(crate) fn begin_process(&mut self) {
        self.of_process = OF_PROCESS;
    }

    /// Takes one step: a file, or a thread. `false`: this process has had its part.
    pub(crate) fn spend(&mut self) -> bool {
        if self.of_process == 0 || self.is_spent() {
            return false;
        }
        self.of_process -= 1;
        self.of_all -= 1;
        if self.of_all.is_multiple_of(STEPS) && time_of_thread() >= self.until {
            self.of_all = 0;
        }
        true
    }

    /// Nothing more can be looked at.
    pub(crate) fn is_spent(&self) -> bool {
        self.of_all == 0
    }
}

/// What this thread has used of a processor.
pub(crate) fn time_of_thread() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Duration::ZERO };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_use_up_what_others_have() {
        let mut budget = Budget::new();
        let steps = (0..).take_while(|_| budget.spend()).count();
        assert_eq!(steps, OF_PROCESS as usize);
        budget.begin_process();
        assert!(budget.spend());
        assert!(!budget.is_spent());
    }

    #[test]
    fn all_of_them_have_an_end_together_and_so_has_the_time() {
        let mut budget = Budget::of(2);
        assert!(budget.spend() && budget.spend());
        assert!(!budget.spend());
        assert!(budget.is_spent());
        let mut late = Budget { until: Duration::ZERO, ..Budget::new() };
        assert!((0..=STEPS).any(|_| !late.spend()));
        assert!(late.is_spent());
    }
}
