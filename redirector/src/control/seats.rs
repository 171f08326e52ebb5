//! Who is connected to the control socket: so many at once, and at the limit the one goes that has asked nothing for
//! longest.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Connections at once; more wait in the socket's queue.
pub(super) const SEATS: usize = 64;

/// A connection keeps its seat for as long as this, whatever it does or does not.
const GRACE: Duration = Duration::from_millis(250);

/// How often it is looked whose turn it is to go, while all seats are taken.
const LOOK: Duration = Duration::from_millis(50);

/// All seats.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<Vec<Arc<SeatState>>>,
    left: Notify,
}

/// One connection's seat, which its connection and the change that it has asked for share. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    state: Arc<SeatState>,
}

/// What the owner of a seat does.
#[derive(Debug)]
pub(super) struct SeatState {
    /// Since when it has nothing that is worked on: it asks, or takes its answer. `None` while its request is worked on.
    idle_since: Mutex<Option<Instant>>,
    /// Its seat is wanted.
    wanted: Notify,
}

impl SeatState {
    /// Its whole request is here.
    pub(super) fn works(&self) {
        *self.idle_since() = None;
    }

    /// Its request has been worked on.
    pub(super) fn worked(&self) {
        *self.idle_since() = Some(Instant::now());
    }

    fn idle_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// A seat for a new connection, as soon as there is one. Those that are idle make place, the idlest first.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        loop {
            if let Some(seat) = self.try_take() {
                return seat;
            }
            tokio::select! {
                () = self.left.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() < SEATS {
            let state =
                Arc::new(SeatState { idle_since: Mutex::new(Some(Instant::now())), wanted: Notify::new() });
            taken.push(Arc::clone(&state));
            return Some(Seat { seats: Arc::clone(self), state });
        }
        let idle = taken.iter().filter_map(|state| Some(((*state.idle_since())?, state)));
        if let Some((since, idlest)) = idle.min_by_key(|(since, _)| *since)
            && since.elapsed() >= GRACE
        {
            idlest.wanted.notify_one();
        }
        None
    }
}

impl Seat {
    /// For those that know what the connection does.
    pub(super) fn state(&self) -> Arc<SeatState> {
        Arc::clone(&self.state)
    }

    /// Ready when somebody else wants the seat and nothing is worked on here.
    pub(super) async fn wanted(&self) {
        loop {
            self.state.wanted.notified().await;
            if self.state.idle_since().is_some() {
                return;
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|state| !Arc::ptr_eq(state, &self.state));
        drop(taken);
        self.seats.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_idlest_goes_and_nobody_whose_request_is_worked_on() {
        let seats = Arc::<Seats>::default();
        let mut all = Vec::new();
        for _ in 0..SEATS {
            all.push(seats.try_take().unwrap());
        }
        // The first works, and all others began long ago, the third before them.
        all[0].state.works();
        for (number, seat) in all.iter().enumerate().skip(1) {
            let age = if number == 2 { 3 } else { 2 } * GRACE;
            *seat.state.idle_since() = Instant::now().checked_sub(age);
        }
        assert!(seats.try_take().is_none());
        let third = all.remove(2);
        third.wanted().await;
        assert!(all.iter().all(|seat| futures_util::FutureExt::now_or_never(seat.wanted()).is_none()));
        drop(third);
        assert!(seats.try_take().is_some());
    }

    #[tokio::test]
    async fn nobody_goes_at_once_nor_while_it_works() {
        let seats = Arc::<Seats>::default();
        let all: Vec<_> = (0..SEATS).map(|_| seats.try_take().unwrap()).collect();
        assert!(seats.try_take().is_none());
        for seat in &all {
            assert!(futures_util::FutureExt::now_or_never(seat.wanted()).is_none());
            *seat.state.idle_since() = Instant::now().checked_sub(2 * GRACE);
        }
        assert!(seats.try_take().is_none());
        // Asked to go, and then it has something to work on.
        all.iter().for_each(|seat| seat.state.works());
        for seat in &all {
            assert!(futures_util::FutureExt::now_or_never(seat.wanted()).is_none());
        }
        assert!(seats.try_take().is_none());
    }
}
