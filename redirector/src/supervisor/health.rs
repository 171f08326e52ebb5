//! What the supervisor does by itself: lets go of dead namespaces, mends drift, takes rules down and up.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    Events, RECONCILE, Supervisor, blocking, list,
    namespace::{Life, Namespace, WentDown},
    rules::{RuleState, RuleTable},
};
use crate::{
    control::{Code, Error},
    netns::NetnsFile,
    observe::RateLimit,
    locate, sys,
};

/// Between two tries to reach a destination that did not answer.
const RETRY: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Acts on events until the daemon ends.
    pub(super) async fn tend(self: Arc<Self>, mut events: Events) {
        let mut tick = tokio::time::interval(RECONCILE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(file) = events.deaths.recv() => self.bury(file).await,
                Some(event) = events.went_down.recv() => {
                    tokio::spawn(Arc::clone(&self).until_up(event));
                }
                _ = tick.tick() => self.reconcile().await,
            }
        }
    }

    /// The namespace has lost its last process and mount: only our sockets keep it. Let go of everything.
    async fn bury(&self, file: NetnsFile) {
        let mut table = self.table.lock().await;
        // The verdict may be about a namespace that was detached meanwhile, and the inode another one's by now.
        let again = sys::blocking::blocking(move || locate::find(&HashSet::from([file]))).await;
        if !again.is_ok_and(|found| found.is_ok_and(|found| found.witnesses.is_empty())) {
            self.watch.add(file);
            return;
        }
        let dead: Vec<_> = table.extract_if(|_, netns| netns.file == file).map(|(_, netns)| netns).collect();
        let dead: Vec<_> = dead.into_iter().chain(self.draining.take(file)).collect();
        // Under the lock: what is made for a lease from here on sees it, and is undone by whoever makes it.
        dead.iter().for_each(|netns| netns.stop_steering(Life::Aborted));
        let leases: Vec<_> = dead.iter().flat_map(|netns| self.leases.bury(netns)).collect();
        for netns in &dead {
            self.selves.remove(netns.cookie);
            for container in self.follows.bury(netns.cookie) {
                tracing::info!(target = %container, "its rules wait until the container runs again");
            }
        }
        if self.remotes.bury(file) {
            tracing::info!(
                inode = file.inode,
                "the namespace of a destination has lost its last process and mount"
            );
            table.values().for_each(Namespace::take_down_gone);
        }
        self.watch.remove(file);
        // Its inode may be another namespace's already, which is to be watched.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&file);
        drop(table);
        // Beside all else: it takes as long as there are processes and files.
        tokio::spawn(async move {
            for lease in leases {
                lease.revoke().await;
            }
        });
        for netns in dead {
            let connections = netns.connections.active.load(Ordering::Relaxed);
            netns.abort().await;
            tracing::info!(
                netns = %netns.target, cookie = %netns.cookie, connections,
                "the namespace has lost its last process and mount; let go of it"
            );
        }
    }

    async fn reconcile(&self) {
        let table = self.table.lock().await;
        for netns in table.values() {
            mend(netns);
        }
        self.names.note_used(|note| {
            for netns in table.values() {
                let published = netns.published.load();
                published
                    .current
                    .rules()
                    .iter()
                    .filter_map(|rule| rule.whereabouts.name.as_deref())
                    .for_each(&mut *note);
            }
        });
        self.follow_interfaces(&table).await;
        self.draining.forget_done(|netns| self.leases.has(netns));
        let steered = table.values().map(|netns| netns.file);
        let draining = self.draining.all();
        let in_use = steered.chain(draining.iter().map(|netns| netns.file)).chain(self.remotes.files());
        let in_use: HashSet<_> = in_use.collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if *watched != in_use {
            self.watch.keep(in_use.clone());
            *watched = in_use;
        }
    }

    /// A rule's destination does not answer: its `on_unavailable` decides from now on, until it does.
    async fn until_up(self: Arc<Self>, WentDown { netns, rule }: WentDown) {
        tracing::warn!(netns = %netns.target, rule = %rule.rule.name, destination = %rule.rule.to, "rule is down: its destination does not answer");
        let mut is_marked = false;
        loop {
            if !is_marked {
                let marked = self.publish_again(&netns, &rule).await;
                is_marked = marked.is_ok();
                if let Err(error) = marked {
                    tracing::error!(netns = %netns.target, rule = %rule.rule.name, %error, "mark the rule down");
                }
            }
            tokio::time::sleep(RETRY).await;
            if self.is_ending() || !in_force(&netns, &rule) && !self.stays_in_force(&netns, &rule).await {
                return;
            }
            if netns.dialer.reaches(rule.route()).await {
                break;
            }
        }
        rule.mark_up();
        tracing::info!(netns = %netns.target, rule = %rule.rule.name, "rule is up");
        while let Err(error) = self.publish_again(&netns, &rule).await {
            tracing::error!(netns = %netns.target, rule = %rule.rule.name, %error, "mark the rule up");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether a rule is in force when no change is under way: an `apply` may take it away, and go back.
    async fn stays_in_force(&self, netns: &Namespace, rule: &Arc<RuleState>) -> bool {
        let _table = self.table.lock().await;
        in_force(netns, rule)
    }

    /// Publishes the same rules, for a mark that has changed.
    async fn publish_again(&self, netns: &Arc<Namespace>, rule: &Arc<RuleState>) -> Result<(), Error> {
        let _table = self.table.lock().await;
        if !in_force(netns, rule) {
            return Ok(());
        }
        let rules = netns.published.load().current.rules().to_vec();
        let netns = Arc::clone(netns);
        blocking(move || {
            let rules = RuleTable::new(rules, netns.instance.rule_sets());
            let rules = rules.map_err(|error| Error::chain(Code::Failed, &error))?;
            netns.publish_marks(&Arc::new(rules)).map_err(|error| Error::chain(Code::Failed, &error))
        })
        .await
    }
}

fn in_force(netns: &Namespace, rule: &Arc<RuleState>) -> bool {
    let published = netns.published.load();
    netns.instance.link_info().is_some() && published.current.rules().iter().any(|one| Arc::ptr_eq(one, rule))
}

/// Puts our listeners back where something else is. One of the relay's that does not listen is its accept loop's.
fn mend(netns: &Namespace) {
    for listener in netns.listeners() {
        if !listener.is_listening() || list::is_in_slot(netns, &listener) {
            continue;
        }
        match netns.fill_slot(&listener) {
            Ok(()) => {
                Namespace::count_mended(&netns.slots_restored, 1);
                tracing::warn!(netns = %netns.target, family = %listener.family(), "restored a listener's slot");
            }
            Err(error) => {
                let error = crate::text::chain(&error);
                tracing::error!(netns = %netns.target, family = %listener.family(), error, "restore a listener's slot");
            }
        }
    }
    netns.mend_black_hole(&RateLimit::default());
}
