//! `list`: what the kernel says now.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use redirector_ebpf::{Counters, Unavailable};

use super::{health::health, state};
use crate::{
    config::{Origin, Target},
    control::{
        Caller, Code, ConnectionCounts, DaemonCounts, Drift, Error, LeaseView, ListenerView, Listing,
        NamespaceView, NetnsCounts, ProgramView, RuleCounts, RuleView, SCHEMA, WaitingView,
    },
    intent::{Follows, Here, Intended, Store},
    lease::{Lease, LeasedSocket, is_open},
    listener::Listener,
    netns::Family,
    observe,
    reconcile::{Sought, World, seek},
    steer::{RuleState, Steered, is_healthy},
    sys::SyscallError,
};

/// `GET /v1/namespaces`. Waits for nobody's turn.
pub(crate) async fn listing(world: &World, caller: Caller, target: Option<Target>) -> Result<Listing, Error> {
    let sought = match &target {
        Some(target) => Some(seek(world, target, caller).await),
        None => None,
    };
    // What is wanted and what is steered at one moment.
    let (intent, all) = snapshot(world);
    let mut waiting = waiting(&intent, &all, target.as_ref());
    let at = sought.as_ref().and_then(Sought::cookie);
    waiting.extend(world.set_aside.view(target.as_ref().map(|target| (target, at))));
    let (wanted, draining) = match sought.map(|sought| sought.find(world)) {
        None => (all, world.draining.view()),
        Some(Ok(netns)) => (vec![netns], Vec::new()),
        Some(Err(error)) if waiting.is_empty() => return Err(error),
        Some(Err(_)) => (Vec::new(), Vec::new()),
    };
    let namespaces = wanted.iter().map(|netns| view(netns, &intent, &world.leases.of(netns)));
    let namespaces = namespaces.collect::<Result<Vec<_>, _>>();
    let mut namespaces = namespaces.map_err(|error| Error::chain(Code::Failed, &error))?;
    namespaces.sort_by_key(|one| (one.target.to_string(), one.cookie));
    let discover = if target.is_none() { world.discovery.view() } else { Vec::new() };
    let daemon = DaemonCounts { log_lines_lost: observe::lines_lost() };
    Ok(Listing { schema: SCHEMA, namespaces, waiting, discover, draining, daemon })
}

/// What is wanted and what is steered. Nobody waits for what is asked of the kernel about it.
pub(super) fn snapshot(world: &World) -> (Store, Vec<Arc<Steered>>) {
    let intent = world.intent();
    (intent.clone(), world.steered.all())
}

/// The rules that follow a target, or wait for it, and are not in force where it led last, of all targets or of one, by what keeps
/// them waiting.
fn waiting(intent: &Store, steered: &[Arc<Steered>], only: Option<&Target>) -> Vec<WaitingView> {
    let steered: HashMap<_, _> = steered.iter().map(|netns| (netns.cookie, netns)).collect();
    let mut views: Vec<WaitingView> = Vec::new();
    for (target, one) in intent.following() {
        let there = one.at.and_then(|at| steered.get(&at));
        if only.is_some_and(|only| only != target) || there.is_some_and(|netns| is_in_force(netns, one)) {
            continue;
        }
        // One that nothing keeps waiting is coming or going at this moment.
        let is_changing = |follows: &&Follows| there.is_some() && follows.why.is_empty();
        let Some(follows) = one.follows.as_deref().filter(|follows| !is_changing(follows)) else { continue };
        let (spec, why) = (one.rule.to_spec(), follows.why.clone());
        let is_with =
            |view: &&mut WaitingView| view.target == *target && view.why == why && view.set == one.set;
        match views.last_mut().filter(is_with) {
            Some(view) => view.rules.push(spec),
            None => {
                let container = follows.id.as_ref().map(ToString::to_string).unwrap_or_default();
                let (target, set) = (target.clone(), one.set.clone());
                views.push(WaitingView { target, container, why, set, rules: vec![spec] });
            }
        }
    }
    views
}

/// Whether a rule that says the same is in force there.
fn is_in_force(netns: &Steered, one: &Intended) -> bool {
    let current = Arc::clone(&netns.published.load().current);
    current.get(&one.rule.name).is_some_and(|state| state.rule.is_like(&one.rule))
}

fn view(netns: &Steered, intent: &Store, leases: &[Arc<Lease>]) -> Result<NamespaceView, SyscallError> {
    let link = netns.instance.link_info().transpose()?;
    let of_no_rule = netns.instance.counters.netns()?;
    let published = netns.published.load();
    let here = intent.here(netns.cookie);
    let leases: HashMap<_, _> = leases.iter().map(|lease| (Arc::as_ptr(&lease.rule), &**lease)).collect();
    // One that nobody wants is coming or going at this moment, and is told of when that is done.
    let is_told = |state: &&Arc<RuleState>| here.at(&state.rule.name).next().is_some();
    let rules = published.current.rules().iter().filter(is_told);
    let rules = rules.map(|state| rule(netns, state, here, leases.get(&Arc::as_ptr(state)).copied()));
    Ok(NamespaceView {
        target: named(netns, here),
        cookie: netns.cookie.0,
        inode: netns.file.inode,
        container: netns.container.as_ref().map(ToString::to_string),
        state: state::of_namespace(link.as_ref()),
        listeners: netns.listeners().iter().map(|one| listener(netns, one)).collect(),
        program: ProgramView { id: netns.instance.program_id()?, link: link.map_or(0, |link| link.id) },
        foreign_programs: netns.foreign_programs.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        rules: rules.collect::<Result<_, _>>()?,
        counters: NetnsCounts { unmatched: of_no_rule.passed, own_listener: of_no_rule.rejected },
        connections: connections(netns),
        drift: Drift {
            listeners_revived: read(&netns.listeners_revived),
            slots_restored: read(&netns.slots_restored),
            links_restored: read(&netns.links_restored),
        },
    })
}

/// As it was named, or, of a container that has another name now, as that.
fn named(netns: &Steered, here: Here<'_>) -> Target {
    if netns.target.container().is_none() {
        return netns.target.clone();
    }
    let published = netns.published.load();
    let mut now = None;
    for state in published.current.rules() {
        let owners = here.owners(&state.rule.name);
        if owners.is_empty() || owners.contains(&netns.target) {
            return netns.target.clone();
        }
        now = now.or(owners.into_iter().next());
    }
    now.unwrap_or_else(|| netns.target.clone())
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn listener(netns: &Steered, listener: &Listener) -> ListenerView {
    ListenerView {
        family: listener.family(),
        address: listener.address().map(|address| address.to_string()).unwrap_or_default(),
        healthy: is_healthy(&netns.instance, listener),
        why: None,
    }
}

fn origin(state: &RuleState, here: Here<'_>) -> Origin {
    if state.is_lease() {
        return Origin::Lease;
    }
    here.origin(&state.rule.name).unwrap_or(Origin::Api)
}

fn rule(
    netns: &Steered,
    state: &RuleState,
    here: Here<'_>,
    leased: Option<&Lease>,
) -> Result<RuleView, SyscallError> {
    let Counters { steered, passed, rejected, dropped, bypassed, unavailable } =
        netns.instance.counters.rule(state.index)?;
    let unavailable_in_all = unavailable.iter().sum();
    let unavailable_reasons: BTreeMap<String, u64> = Unavailable::ALL
        .iter()
        .zip(unavailable)
        .filter(|(_, count)| *count > 0)
        .map(|((_, name), count)| ((*name).to_owned(), count))
        .collect();
    let lease = leased.map(|leased| lease(netns, leased));
    Ok(RuleView {
        name: state.rule.name.clone(),
        origin: origin(state, here),
        set: here.at(&state.rule.name).find_map(|(_, one)| one.set.clone()),
        matches: state.rule.matches.clone(),
        from: state.rule.from.clone(),
        except: state.rule.except.clone(),
        interfaces: state.rule.interfaces.clone(),
        interfaces_missing: state.missing_interfaces(),
        priority: state.rule.priority,
        to: vec![state.rule.to.clone()],
        on_unavailable: state.rule.on_unavailable,
        connect_timeout: state.rule.connect_timeout,
        idle_timeout: state.rule.idle_timeout,
        coexist: state.rule.coexist,
        state: state::of_rule(state),
        health: health(state, lease.as_ref()),
        took_nothing: steered + passed + rejected + dropped + bypassed + unavailable_in_all == 0,
        counters: RuleCounts {
            steered,
            passed,
            rejected,
            dropped,
            bypassed,
            unavailable: unavailable_in_all,
            unavailable_reasons,
        },
        follows: here.owners(&state.rule.name).into_iter().next(),
        discovered: here.is_found(&state.rule.name),
        lease,
    })
}

/// Who holds the listeners of a rule.
pub(super) fn lease(netns: &Steered, lease: &Lease) -> LeaseView {
    let in_slots = lease.in_slots();
    let is_missing = |family: &Family| in_slots.iter().all(|one| one.family != *family);
    let without = match lease.terms.listen_as {
        Some(_) => [Family::Ipv4, Family::Ipv6].into_iter().filter(is_missing).collect(),
        // It has what it has asked for.
        None => Vec::new(),
    };
    let listeners = in_slots.iter().map(|one| {
        let healthy = lease.is_in_slot(netns, one);
        let why = if healthy { None } else { unhealthy(netns, lease, one) };
        ListenerView { family: one.family, address: one.address.to_string(), healthy, why }
    });
    let listeners = listeners.collect();
    LeaseView { pid: lease.pid, listeners, without, holders: lease.heirs.numbers() }
}

/// Why nobody gets to a listener of a lease.
fn unhealthy(netns: &Steered, lease: &Lease, socket: &LeasedSocket) -> Option<String> {
    if !is_open(netns, socket) {
        return Some("its program has closed it".into());
    }
    let waiting = lease.unserved(socket.cookie)?;
    let connections =
        if waiting == 1 { "1 connection waits".into() } else { format!("{waiting} connections wait") };
    Some(format!("nobody accepts from it: {connections}"))
}

fn connections(netns: &Steered) -> ConnectionCounts {
    let counters = &netns.connections;
    ConnectionCounts {
        active: read(&counters.active),
        lingering: read(&counters.lingering),
        accepted: read(&counters.accepted),
        relayed: read(&counters.relayed),
        bytes_in: read(&counters.bytes_in),
        bytes_out: read(&counters.bytes_out),
        bytes_lost: read(&counters.bytes_lost),
        bytes_lost_to_clients: read(&counters.bytes_lost_to_clients),
        accept_exhausted: read(&counters.accept_exhausted),
        failed: counters.not_delivered(),
        ended: counters.ended(),
    }
}
