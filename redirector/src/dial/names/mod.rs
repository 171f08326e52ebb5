//! Host names of destinations: one entry for each name, whatever the number of rules, looked up off the accept path.

mod look_up;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use self::look_up::{Ask, Lane, LookUps, PROMPT, getaddrinfo};

/// The least time between two look-ups of a name that nobody asks for by `attach` or `apply`; and how soon a name
/// without an address is looked up again.
const SPACING: Duration = Duration::from_secs(1);

/// How long a look-up is waited for by whoever attaches a rule.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rounds for which a new name counts as used before a rule in force has it.
const GRACE: u64 = 3;

/// Every name that a rule has.
#[derive(Debug)]
pub(crate) struct Names {
    entries: Mutex<HashMap<String, Weak<Name>>>,
    look_ups: LookUps,
    /// How often a name is looked up while a rule in force has it. `None`: only when a dial has failed.
    interval: Option<Duration>,
    /// Counts the looks at which names are used.
    round: AtomicU64,
}

/// A host name and its addresses. When a look-up fails, the last addresses stay.
#[derive(Debug)]
pub(crate) struct Name {
    text: String,
    names: Arc<Names>,
    addresses: ArcSwap<Vec<IpAddr>>,
    state: Mutex<State>,
    /// Counts the look-ups that have ended.
    ended: watch::Sender<u64>,
    /// The last round in which a rule in force had it.
    used: AtomicU64,
    _refresh: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    began: Option<Instant>,
    /// The last look-up, or the one that runs, had no answer in time.
    is_slow: bool,
    /// Why the last look-up failed.
    error: Option<io::Error>,
}

impl Names {
    /// Begins with none. An `interval` of zero is never. As many look-ups as `overdue` may wait for silent name servers
    /// beside those that are within their time; each has a file open.
    pub(crate) fn new(interval: Duration, overdue: usize) -> Arc<Self> {
        Self::asking(interval, overdue, getaddrinfo)
    }

    fn asking(interval: Duration, overdue: usize, ask: Ask) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            look_ups: LookUps::new(ask, overdue),
            interval: (!interval.is_zero()).then(|| interval.max(SPACING)),
            round: AtomicU64::new(0),
        })
    }

    /// The entry of a name, which may have no address yet.
    pub(crate) fn get(self: &Arc<Self>, text: &str) -> Arc<Name> {
        let text = text.to_ascii_lowercase();
        let mut entries = self.entries();
        if let Some(name) = entries.get(&text).and_then(Weak::upgrade) {
            return name;
        }
        let name = Arc::new_cyclic(|name| Name {
            text: text.clone(),
            names: Arc::clone(self),
            addresses: ArcSwap::default(),
            state: Mutex::default(),
            ended: watch::Sender::new(0),
            used: AtomicU64::new(self.round.load(Ordering::Relaxed) + GRACE),
            _refresh: AbortOnDropHandle::new(tokio::spawn(refresh(Weak::clone(name)))),
        });
        entries.insert(text, Arc::downgrade(&name));
        name
    }

    /// Learns which names are used: those of rules in force. A name that is not is not looked up.
    pub(crate) fn note_used(&self, used: impl FnOnce(&mut dyn FnMut(&Name))) {
        let round = self.round.load(Ordering::Relaxed) + 1;
        used(&mut |name| {
            name.used.fetch_max(round, Ordering::Relaxed);
        });
        self.round.store(round, Ordering::Relaxed);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Weak<Name>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let mut entries = self.names.entries();
        // There may be a new entry by now.
        if entries.get(&self.text).is_some_and(|name| name.strong_count() == 0) {
            entries.remove(&self.text);
        }
    }
}

impl Name {
    /// As they were last found, in the order of the system's preference.
    pub(crate) fn addresses(&self) -> Arc<Vec<IpAddr>> {
        self.addresses.load_full()
    }

    /// Whether no look-up has ever found an address.
    pub(crate) fn is_unknown(&self) -> bool {
        self.addresses.load().is_empty()
    }

    /// Ready when the name has an address that somebody looks after, else when a look-up has failed or takes too long.
    pub(crate) async fn resolve(self: &Arc<Self>) -> io::Result<()> {
        let mut ended = self.ended.subscribe();
        if self.is_looked_after() {
            return Ok(());
        }
        self.begin(Lane::Urgent);
        let in_time = tokio::time::timeout(PATIENCE, ended.changed()).await.is_ok();
        let state = self.state();
        let error = match &state.error {
            _ if !in_time => io::ErrorKind::TimedOut.into(),
            Some(why) => io::Error::new(why.kind(), why.to_string()),
            None => {
                // As a new one.
                self.used.fetch_max(self.names.round.load(Ordering::Relaxed) + GRACE, Ordering::Relaxed);
                return Ok(());
            }
        };
        Err(error)
    }

    /// Has the name looked up when its time comes, for a rule that can wait.
    pub(crate) fn resolve_later(self: &Arc<Self>) {
        if !self.is_looked_after() {
            self.begin(Lane::Regular);
        }
    }

    /// Whether its addresses are those of a rule in force, or have just been found. A name that only connections of rules
    /// before still hold has the addresses of then.
    fn is_looked_after(&self) -> bool {
        let is_new = || {
            let state = self.state();
            !state.is_running && state.error.is_none() && !state.is_due_after(SPACING)
        };
        !self.is_unknown() && (self.is_used() || is_new())
    }

    fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.names.round.load(Ordering::Relaxed)
    }

    /// Looks the name up again because a dial to `tried` has failed. Gives the addresses if they are different now.
    /// All whose dial fails share one look-up, and there is one a second at most. Nobody waits for a name whose last
    /// look-up had no answer in time.
    pub(crate) async fn again(self: &Arc<Self>, tried: &[IpAddr]) -> Option<Arc<Vec<IpAddr>>> {
        let mut ended = self.ended.subscribe();
        let other = || {
            let now = self.addresses();
            let is_same = now.len() == tried.len() && now.iter().all(|one| tried.contains(one));
            (!is_same).then_some(now)
        };
        if let Some(now) = other() {
            return Some(now);
        }
        let (is_due, is_slow) = {
            let state = self.state();
            (state.is_running || state.is_due_after(SPACING), state.is_slow)
        };
        if is_due {
            self.begin(Lane::Urgent);
        }
        if !is_due || is_slow {
            return None;
        }
        // The sender is in `self`.
        ended.changed().await.ok()?;
        other()
    }

    /// Begins a look-up where none runs.
    fn begin(self: &Arc<Self>, lane: Lane) {
        let mut state = self.state();
        if state.is_running {
            return;
        }
        state.is_running = true;
        state.began = Some(Instant::now());
        let lane = if state.is_slow { Lane::Slow } else { lane };
        drop(state);
        // A task of its own: whoever waits may give up, and the thread goes on.
        tokio::spawn(Arc::clone(self).look_up(lane));
    }

    async fn look_up(self: Arc<Self>, lane: Lane) {
        let place = self.names.look_ups.place(lane).await;
        {
            let mut state = self.state();
            // Nobody has it any more. Who comes now begins another look-up.
            state.is_running = Arc::strong_count(&self) > 1;
            if !state.is_running {
                return;
            }
        }
        let began = Instant::now();
        let overdue = || self.state().is_slow = true;
        let found = self.names.look_ups.look_up(place, &self.text, overdue).await;
        self.end(found, began.elapsed());
    }

    fn end(&self, found: io::Result<Vec<IpAddr>>, took: Duration) {
        let mut state = self.state();
        let name = self.text.escape_debug();
        state.is_running = false;
        // An answer that comes at once is one of a name server that is there, whatever it says.
        state.is_slow = found.is_err() && took >= PROMPT;
        let had_failed = state.error.is_some();
        match found {
            Ok(found) => {
                state.error = None;
                if had_failed && !self.is_unknown() {
                    tracing::info!(%name, "destination resolved again");
                }
                self.addresses.store(Arc::new(found));
            }
            Err(error) => {
                if !had_failed && !self.is_unknown() {
                    tracing::warn!(%name, %error, ?took, "destination not resolved; its last addresses stay");
                }
                state.error = Some(error);
            }
        }
        drop(state);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Begins a look-up when it is time. Gives the time until the next look at it.
    fn tick(self: &Arc<Self>) -> Duration {
        let period = if self.is_unknown() { Some(SPACING) } else { self.names.interval };
        let Some(period) = period else { return PATIENCE };
        let state = self.state();
        let since = state.began.map_or(Duration::MAX, |began| began.elapsed());
        if state.is_running {
            return SPACING;
        }
        if since < period {
            return period - since;
        }
        drop(state);
        if self.is_used() {
            self.begin(Lane::Regular);
        }
        period
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_due_after(&self, spacing: Duration) -> bool {
        self.began.is_none_or(|began| began.elapsed() >= spacing)
    }
}

/// Looks a name up again and again, for as long as there is the name.
async fn refresh(name: Weak<Name>) {
    // Its entry is being made.
    let mut pause = SPACING;
    loop {
        tokio::time::sleep(pause).await;
        let Some(name) = name.upgrade() else { return };
        pause = name.tick();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, atomic::AtomicUsize};

    use super::*;

    /// Names that begin with `silent` are answered when this is set.
    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static SILENT: AtomicUsize = AtomicUsize::new(0);
    /// The same for those that begin with `once-silent`.
    static ONCE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    /// How often names have been asked for that begin with `moves`. Each time they are elsewhere.
    static MOVES: AtomicUsize = AtomicUsize::new(0);

    fn ask(name: &str) -> io::Result<Vec<IpAddr>> {
        if name.starts_with("silent") {
            SILENT.fetch_add(1, Ordering::Relaxed);
            let open = GATE.0.lock().unwrap();
            drop(GATE.1.wait_while(open, |open| !*open).unwrap());
            return Err(io::ErrorKind::TimedOut.into());
        }
        if name.starts_with("none") {
            return Err(io::ErrorKind::NotFound.into());
        }
        if name.starts_with("once-silent") {
            let open = ONCE.0.lock().unwrap();
            drop(ONCE.1.wait_while(open, |open| !*open).unwrap());
            return Err(io::ErrorKind::NotFound.into());
        }
        if name.starts_with("moves") {
            let asked = MOVES.fetch_add(1, Ordering::Relaxed);
            return Ok(vec![IpAddr::from([192, 0, 2, u8::try_from(asked).unwrap()])]);
        }
        Ok(vec![IpAddr::from([192, 0, 2, 1])])
    }

    /// More than there is room for, so that whatever can be blocked is.
    const MANY: usize = 100;

    #[tokio::test]
    async fn names_that_answer_do_not_wait_behind_a_hundred_that_are_silent_and_none_is_asked_twice_at_once()
    {
        let names = Names::asking(Duration::from_secs(5), 20, ask);
        let silent: Vec<_> = (0..MANY).map(|number| names.get(&format!("silent{number}.test"))).collect();
        silent.iter().for_each(Name::resolve_later);
        // The same entry, and the look-up that runs already.
        for (number, one) in silent.iter().enumerate() {
            let again = names.get(&format!("SILENT{number}.test"));
            assert!(Arc::ptr_eq(&again, one));
            again.resolve_later();
        }
        for number in 0..50 {
            let good = names.get(&format!("good{number}.test"));
            good.resolve().await.unwrap();
            assert_eq!(good.addresses().len(), 1);
        }
        let error = names.get("none.test").resolve().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let threads = SILENT.load(Ordering::Relaxed);
        // Those of two lanes, and the overdue ones.
        assert!(threads <= 4 + 4 + 20, "{threads}");
        *GATE.0.lock().unwrap() = true;
        GATE.1.notify_all();
        for one in &silent {
            let mut ended = one.ended.subscribe();
            while one.state().error.is_none() {
                ended.changed().await.unwrap();
            }
        }
        assert!(SILENT.load(Ordering::Relaxed) <= 2 * MANY);
    }

    #[tokio::test]
    async fn a_name_is_slow_no_longer_than_until_its_server_answers_in_time_whatever_it_says() {
        let names = Names::asking(Duration::ZERO, 20, ask);
        let name = names.get("once-silent.test");
        let mut ended = name.ended.subscribe();
        name.begin(Lane::Urgent);
        while !name.state().is_slow {
            tokio::task::yield_now().await;
        }
        *ONCE.0.lock().unwrap() = true;
        ONCE.1.notify_all();
        ended.changed().await.unwrap();
        assert!(name.state().is_slow, "it had no answer in time");
        name.begin(Lane::Urgent);
        ended.changed().await.unwrap();
        let state = name.state();
        assert!(state.error.is_some() && !state.is_slow, "{state:?}");
    }

    #[tokio::test]
    async fn a_name_that_no_rule_in_force_has_is_looked_up_for_the_next_rule_that_wants_it() {
        let names = Names::asking(Duration::ZERO, 20, ask);
        // A connection of a rule that is gone.
        let held = names.get("moves.test");
        held.resolve().await.unwrap();
        let before = held.addresses();
        let in_use = |rounds, is_used| {
            let note = |note: &mut dyn FnMut(&Name)| {
                if is_used {
                    note(&held);
                }
            };
            (0..rounds).for_each(|_| names.note_used(note));
        };
        in_use(2 * GRACE, true);
        held.state().began = None;
        names.get("moves.test").resolve().await.unwrap();
        assert_eq!(held.addresses(), before, "a rule in force has it");
        in_use(2 * GRACE, false);
        names.get("moves.test").resolve().await.unwrap();
        assert_ne!(held.addresses(), before);
        assert!(held.is_used(), "it is for a rule that is about to be in force");
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_is_forgotten() {
        let names = Names::asking(Duration::ZERO, 20, ask);
        let name = names.get("good.test");
        name.resolve().await.unwrap();
        assert_eq!(names.entries().len(), 1);
        drop(name);
        while !names.entries().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_failed_dial_asks_once_a_second_at_most_and_gets_only_other_addresses() {
        let names = Names::asking(Duration::ZERO, 20, ask);
        let name = names.get("good.test");
        name.resolve().await.unwrap();
        // It has just been looked up.
        assert!(name.again(&name.addresses()).await.is_none());
        assert_eq!(*name.ended.borrow(), 1);
        // Somebody else has looked it up meanwhile.
        assert!(name.again(&[IpAddr::from([192, 0, 2, 9])]).await.is_some());
        name.state().began = None;
        assert!(name.again(&name.addresses()).await.is_none());
        assert_eq!(*name.ended.borrow(), 2);
    }
}
