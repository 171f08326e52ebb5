//! How long a peer is waited for that has not acknowledged all.
//!
//! A peer that answers lives, however slowly it reads: what counts is whether it makes progress, not how long all
//! of it takes. An answered window probe is life, and no progress. A peer with a closed window is asked seldom (the
//! kernel lets the pause between two probes grow to two minutes): its silence between two questions says nothing.

use std::time::{Duration, Instant};

use crate::sys::socket::TcpInfo;

/// Limits for a peer that has not acknowledged all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Without any answer to what it was sent or asked.
    pub unanswered: Duration,
    /// Without one more byte acknowledged.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { unanswered: Duration::from_secs(30), stalled: Duration::from_secs(600) }
    }
}

/// Why a peer is not waited for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It answers, and takes nothing.
    Stalled,
    /// It does not answer.
    Unanswering,
}

/// One packet can get lost: a peer is gone when it has left so many questions without an answer.
const QUESTIONS: u32 = 2;

/// Judges one peer by what the kernel says about it, from look to look.
#[derive(Debug)]
pub(super) struct Judge {
    patience: Patience,
    looked: Instant,
    progressed: Instant,
    before: Option<TcpInfo>,
    /// Looks that saw a new question since the last answer, and when the first of them was.
    questions: Option<(Instant, u32)>,
}

impl Judge {
    pub(super) fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, looked: now, progressed: now, before: None, questions: None }
    }

    /// The peer has taken something that `TCP_INFO` does not show.
    pub(super) fn progressed(&mut self, now: Instant) {
        self.progressed = now;
    }

    /// Whether the peer has acknowledged something since the last look.
    pub(super) fn look(&mut self, now: Instant, info: TcpInfo) -> Result<bool, Lost> {
        let since_look = now.duration_since(self.looked);
        let answered = Duration::from_millis(info.since_answer.into()) < since_look;
        let asked = match self.before {
            None => info.in_flight > 0 || info.probes > 0,
            Some(before) => {
                let of = |info: TcpInfo| (info.segments, info.retransmits, info.probes);
                of(info) != of(before)
            }
        };
        if answered {
            self.questions = None;
        } else if asked {
            self.questions.get_or_insert((now, 0)).1 += 1;
        }
        let progress = self.before.is_some_and(|before| before.acknowledged != info.acknowledged);
        if progress {
            self.progressed = now;
        }
        self.looked = now;
        self.before = Some(info);
        let is_over = |since: Instant, limit: Duration| now.duration_since(since) >= limit;
        match self.questions {
            Some((first, QUESTIONS..)) if is_over(first, self.patience.unanswered) => Err(Lost::Unanswering),
            _ if is_over(self.progressed, self.patience.stalled) => Err(Lost::Stalled),
            _ => Ok(progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second at what `peer` gives for each second, until the peer is lost: when, and why.
    fn judged(seconds: u64, peer: impl FnMut(u32) -> TcpInfo) -> Result<(), (u64, Lost)> {
        judged_each(1, seconds, peer)
    }

    fn judged_each(
        pause: usize,
        seconds: u64,
        mut peer: impl FnMut(u32) -> TcpInfo,
    ) -> Result<(), (u64, Lost)> {
        let begin = Instant::now();
        let mut judge = Judge::new(Patience::default(), begin);
        for second in (0..seconds).step_by(pause) {
            let now = begin + Duration::from_secs(second);
            let info = peer(u32::try_from(second).unwrap());
            judge.look(now, info).map_err(|lost| (second, lost))?;
        }
        Ok(())
    }

    /// A peer that has answered everything that it was asked, the last time at this second.
    fn answered(second: u32, last: u32) -> TcpInfo {
        TcpInfo { since_answer: (second - last) * 1000, segments: 3 + last, ..TcpInfo::default() }
    }

    #[test]
    fn a_peer_whose_window_is_closed_is_stalled_after_ten_minutes() {
        // As measured: the pauses between probes double up to two minutes.
        let probes = [0, 1, 3, 6, 13, 26, 52, 104, 208, 328, 448, 568, 688];
        let peer = |second| answered(second, *probes.iter().rfind(|probe| **probe <= second).unwrap());
        assert_eq!(judged(1000, peer), Err((600, Lost::Stalled)));
    }

    #[test]
    fn who_looks_only_each_ten_seconds_comes_to_the_same_ends() {
        let silent = |second: u32| TcpInfo {
            retransmits: u8::try_from(second.min(60)).unwrap(),
            in_flight: 2,
            since_answer: 1 + second * 1000,
            segments: 3,
            ..TcpInfo::default()
        };
        assert_eq!(judged_each(10, 100, silent), Err((30, Lost::Unanswering)));
        let closed = |second: u32| answered(second, second - second % 15);
        assert_eq!(judged_each(10, 1000, closed), Err((600, Lost::Stalled)));
        let slow = |second: u32| TcpInfo { acknowledged: u64::from(second / 540), ..closed(second) };
        assert_eq!(judged_each(10, 36_000, slow), Ok(()));
    }

    #[test]
    fn a_peer_that_takes_one_byte_every_nine_minutes_gets_all() {
        let peer = |second| TcpInfo {
            acknowledged: u64::from(second / 540),
            ..answered(second, second - second % 60)
        };
        assert_eq!(judged(36_000, peer), Ok(()));
    }

    #[test]
    fn a_peer_that_nothing_is_heard_of_is_lost_after_half_a_minute() {
        // As measured: with the link down retransmissions count that wait in a queue of this host.
        let retransmits = |second: u32| u8::try_from(second.min(30)).unwrap();
        let queued = |second| TcpInfo {
            retransmits: retransmits(second),
            in_flight: 2,
            since_answer: 1 + second * 1000,
            segments: 3,
            ..TcpInfo::default()
        };
        assert_eq!(judged(100, queued), Err((30, Lost::Unanswering)));
        let sent = |second| TcpInfo { segments: 3 + second, retransmits: 0, ..queued(second) };
        assert_eq!(judged(100, sent), Err((30, Lost::Unanswering)));
    }

    #[test]
    fn a_peer_that_vanishes_while_its_window_is_closed_is_lost_half_a_minute_after_the_first_probe() {
        // With the last answer at 7 s, and then a probe each 15 s.
        let peer = |second: u32| {
            let probes = second.saturating_sub(7) / 15;
            let since_answer = second.saturating_sub(7) * 1000 + 1;
            TcpInfo {
                probes: u8::try_from(probes).unwrap(),
                segments: 3 + probes,
                since_answer,
                ..TcpInfo::default()
            }
        };
        assert_eq!(judged(100, peer), Err((52, Lost::Unanswering)));
    }

    #[test]
    fn one_lost_packet_between_long_pauses_is_no_silence() {
        // Probes at 0, 120, 240, 360 s; the answer to that at 120 s is lost.
        let peer = |second: u32| {
            let last = second - second % 120;
            let answer = if last == 120 { 0 } else { last };
            TcpInfo {
                probes: u8::from(last == 120),
                segments: 3 + last / 120,
                since_answer: (second - answer) * 1000,
                ..TcpInfo::default()
            }
        };
        assert_eq!(judged(590, peer), Ok(()));
    }

    #[test]
    fn a_peer_that_answers_late_but_answers_is_heard() {
        // Asked at 0 s and 10 s of every 40, and answered at 25 s.
        let peer = |second: u32| {
            let asked = second / 40;
            let answer =
                if second % 40 >= 25 { asked * 40 + 25 } else { (asked * 40 + 25).saturating_sub(40) };
            TcpInfo {
                in_flight: 1,
                segments: 3 + 2 * asked + u32::from(second % 40 >= 10),
                since_answer: second.saturating_sub(answer) * 1000,
                acknowledged: u64::from(asked),
                ..TcpInfo::default()
            }
        };
        assert_eq!(judged(2000, peer), Ok(()));
    }
}
