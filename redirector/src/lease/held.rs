//! A lease whose process has ended, and that goes on with who holds its listeners: a successor that the process has started, its
//! workers, or whoever was sent them.
//!
//! Whether anybody holds a listener the kernel knows: a map has it for as long as it is open and listens, also while it is on its
//! way in a message. Which processes hold it `/proc` tells, as far as it can be seen.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    budget::time_of_thread,
    holders::{find, holders_of},
    leased::{Lease, LeasedSocket},
    queue::{AcceptQueue, QueueLook},
    task::Process,
};
use crate::{
    kernel,
    netns::{self, Family},
    steer::Steered,
    sys::{aside::Aside, blocking::blocking},
};

/// What has become of a listener at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// Nobody has accepted from it for too long, and so many wait.
    Unserved(u32),
    /// Nobody waits any more.
    Served,
}

/// The queues of one lease's listeners, by cookie.
#[derive(Debug, Default)]
pub(crate) struct Queues(HashMap<u64, AcceptQueue>);

impl Lease {
    /// Looks for those who hold these listeners.
    ///
    /// # Errors
    ///
    /// When nobody can be looked at.
    pub(crate) async fn look_for_holders(&self, sockets: Vec<LeasedSocket>) -> io::Result<Vec<Process>> {
        let look = move |aside: &Aside, _: &[OwnedFd]| {
            let (by_socket, _) = holders_of(aside, &sockets);
            in_order(by_socket.into_values().flatten())
        };
        self.looks.look(&[], look).await
    }

    /// Waits until its program has not used up its share of the daemon's time.
    pub(crate) async fn wait_for_share(&self) {
        self.looks.turn().await;
    }

    /// How many connections wait at a listener that was taken out of its slot.
    pub(crate) fn unserved(&self, cookie: u64) -> Option<u32> {
        self.unserved.get(cookie)
    }

    /// Looks at the queues of listeners once, and takes those out of their slots from which nobody accepts. Puts back those whose
    /// queues are empty again. In the namespace's turn.
    ///
    /// # Errors
    ///
    /// When the queues cannot be seen.
    pub(crate) async fn tend_queues(
        &self,
        netns: &Arc<Steered>,
        open: &[LeasedSocket],
        queues: &mut Queues,
    ) -> io::Result<()> {
        let (looks, cost) = look(netns, open, self.rule.consumer).await?;
        // The more connections there are the longer it takes.
        self.looks.pay(cost);
        for (socket, turn) in
            queues.turns(looks, self.terms.accept_within, |cookie| self.unserved(cookie).is_some())
        {
            let of_socket = || open.iter().filter(move |one| one.cookie == socket);
            match turn {
                Service::Unserved(waiting) => {
                    self.unserved.insert(socket, waiting);
                    for one in of_socket().filter(|one| self.is_in_slot(netns, one)) {
                        netns.instance.clear_listener(self.slot(one.family));
                        tracing::warn!(
                            netns = %netns.target, rule = %self.rule.rule.name, family = %one.family, waiting,
                            "nobody accepts from a listener since its program has ended; on_unavailable decides until somebody does"
                        );
                    }
                }
                Service::Served => {
                    let back: Vec<_> = of_socket().cloned().collect();
                    self.put_back(netns, back).await?;
                    self.unserved.remove(socket);
                    tracing::info!(netns = %netns.target, rule = %self.rule.rule.name, "a listener is accepted from again");
                }
            }
        }
        Ok(())
    }

    /// Puts a listener into its slots again. The daemon has it for this moment only, and on a thread that has no other file.
    async fn put_back(&self, netns: &Arc<Steered>, socket: Vec<LeasedSocket>) -> io::Result<()> {
        let slots: Vec<u32> = socket.iter().map(|one| self.slot(one.family)).collect();
        let map = [netns.instance.listeners()];
        let put = self.looks.look(&map, move |aside, files| {
            let place =
                find(aside, &socket).ok_or_else(|| io::Error::other("nobody was found who holds it"))?;
            let taken = place.take(aside)?;
            slots.iter().try_for_each(|slot| kernel::fill_slot(files[0].as_fd(), *slot, taken.as_fd()))
        });
        put.await?
    }
}

/// Each process once, in the order of their numbers.
pub(super) fn in_order(processes: impl Iterator<Item = Process>) -> Vec<Process> {
    let different: HashSet<Process> = processes.collect();
    let mut processes: Vec<_> = different.into_iter().collect();
    processes.sort_unstable_by_key(|process| process.number());
    processes
}

/// Whether anybody has a listener open, and it listens.
pub(crate) fn is_open(netns: &Steered, socket: &LeasedSocket) -> bool {
    // What cannot be told is taken for open: the next look tells.
    netns.instance.own_listener(socket.address).map_or(true, |found| found == Some(socket.cookie))
}

/// Looks at the queues of these listeners, by cookie. The connections are looked at only where one waits. Gives what it has used
/// of a processor, too.
async fn look(
    netns: &Arc<Steered>,
    open: &[LeasedSocket],
    consumer: u32,
) -> io::Result<(HashMap<u64, QueueLook>, Duration)> {
    let (netns, open) = (Arc::clone(netns), open.to_vec());
    blocking(move || {
        let fd = netns.open()?;
        let (before, children, after, cost) = netns::enter(&fd, || {
            let before = netns::queues()?;
            let is_empty = open.iter().all(|one| before.get(&one.cookie).is_none_or(|waiting| *waiting == 0));
            let children = if is_empty { Vec::new() } else { netns::children()? };
            let after = if is_empty { before.clone() } else { netns::queues()? };
            io::Result::Ok((before, children, after, time_of_thread()))
        })??;
        let published = netns.published.load();
        let mut looks = HashMap::<u64, QueueLook>::new();
        for one in &open {
            let length = |queues: &HashMap<u64, u32>| queues.get(&one.cookie).copied().unwrap_or(0);
            let look = looks.entry(one.cookie).or_default();
            (look.before, look.after) = (length(&before), length(&after));
            let of_family = children.iter().filter(|child| Family::of(child.ends.local.ip()) == one.family);
            for child in of_family.filter(|child| published.current.leads_to(consumer, child.ends)) {
                let side = if child.is_accepted { &mut look.accepted } else { &mut look.waiting };
                side.insert(child.cookie);
            }
        }
        Ok((looks, cost))
    })
    .await?
}

impl Queues {
    /// What has become of each listener.
    fn turns(
        &mut self,
        looks: HashMap<u64, QueueLook>,
        limit: Duration,
        is_unserved: impl Fn(u64) -> bool,
    ) -> Vec<(u64, Service)> {
        let now = Instant::now();
        self.0.retain(|cookie, _| looks.contains_key(cookie));
        let turns = looks.into_iter().filter_map(|(cookie, look)| {
            let waiting = look.after;
            let age = self.0.entry(cookie).or_default().look(now, look);
            match (age, is_unserved(cookie)) {
                (None, true) => Some((cookie, Service::Served)),
                (Some(age), false) if age >= limit && !limit.is_zero() => {
                    Some((cookie, Service::Unserved(waiting)))
                }
                _ => None,
            }
        });
        turns.collect()
    }
}
