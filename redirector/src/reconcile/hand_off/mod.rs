//! A hand-off: a rule for a program that gets listeners of its own, from the request to its end.

mod asked;
mod end;
mod held;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use self::asked::{OnDemand, asked};
pub(crate) use self::end::end_leases;
use super::{
    attach::{For, Mode, NewRule, PutRule, When, put},
    destinations::Missing,
    places::open_unless_steered,
    world::World,
};
use crate::{
    config::{
        DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Destination, ParseError, RuleName, RuleSpec, Target,
    },
    control::{
        ACCEPT_WITHIN, Code, Error, HandedOff, LISTEN_WITHIN, LeaseRequest, Leased, LeasedListener, Receiver,
        SCHEMA,
    },
    dial::Whereabouts,
    intent::HostNetns,
    lease::{Answers, GoesOn, Holder, Lease, LeasedSocket, Terms, describe, wait_for_end, watch},
    listener::Reach,
    netns::Family,
};

/// Makes a rule and listeners for a program, for as long as that runs.
///
/// # Errors
///
/// Nothing is left of it.
pub(crate) async fn lease(
    world: &Arc<World>,
    receiver: Receiver,
    request: LeaseRequest,
) -> Result<HandedOff, Error> {
    let LeaseRequest {
        target,
        matches,
        from,
        except,
        interfaces,
        priority,
        name,
        on_unavailable,
        coexist,
        host_netns,
        kill_after,
        listen_as,
        user,
        listeners,
        end_with_process,
        accept_within,
        listen_within,
        notices,
    } = request;
    if listen_as.is_some() && !listeners.is_default() {
        let why =
            "request: `listeners` is not for `listen_as`, where the program's own sockets say which it gets";
        return Err(Error::new(Code::Usage, why));
    }
    let Receiver { caller, pidfd, enclosed } = receiver;
    let asked = asked(listen_as, enclosed, caller, &pidfd)?;
    // Before anything is made: a lease whose end nobody sees would last for ever.
    let end = watch(&pidfd)
        .map_err(|error| Error::new(Code::Failed, format!("watch the program that asks: {error}")))?;
    let spec = RuleSpec {
        name,
        matches,
        from,
        except,
        interfaces,
        priority,
        to: vec![Destination::Handoff],
        on_unavailable,
        connect_timeout: DEFAULT_CONNECT_TIMEOUT,
        idle_timeout: DEFAULT_IDLE_TIMEOUT,
        coexist,
    };
    spec.validate_lease().map_err(|ParseError(why)| Error::new(Code::Usage, why))?;
    let opened = open_unless_steered(world, &target, caller).await?;
    let wanted = NewRule {
        target: target.clone(),
        spec,
        host_netns: if host_netns { HostNetns::Allowed } else { HostNetns::Refused },
        whom: For::Program(if asked.is_some() { When::OnDemand } else { When::AtOnce(listeners) }),
        mode: Mode::Real,
        missing: Missing::Refused,
        by: caller,
    };
    let PutRule { answer, netns, state, listeners: made } =
        put(world, wanted, opened, Whereabouts::default()).await?;
    let netns = netns.ok_or_else(|| Error::new(Code::Failed, "no namespace was attached"))?;
    // From here on the rule is in force: whatever fails, the watcher takes it back.
    let (delivered, told) = oneshot::channel();
    let (sockets, failure) = match describe(&made) {
        Ok(sockets) => (sockets, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let named = named_listeners(&sockets, &target, &answer.rule);
    let user = user.or(caller.uid).unwrap_or(u32::MAX);
    let holder = Holder { pid: caller.pid, pidfd, user, kill_after };
    let terms = Terms {
        goes_on: if end_with_process { GoesOn::No } else { GoesOn::WithListeners },
        accept_within: accept_within.unwrap_or(ACCEPT_WITHIN).0,
        listen_as,
    };
    let (tells, news) = if notices { Some(mpsc::unbounded_channel()) } else { None }.unzip();
    let lease = Arc::new(Lease::new(state, sockets, holder, (terms, tells)));
    world.leases.add(&netns, &lease);
    if netns.is_aborted() {
        // It died before the lease was there to be revoked with the others.
        for lease in world.leases.bury(&netns) {
            lease.revoke().await;
        }
    }
    if !netns.is_steering() {
        // Or it was detached; who holds its listeners is wanted when it dies.
        world.draining.push(&netns);
    }
    if let Some(error) = failure {
        end::end_lease(world, &netns, &lease).await;
        return Err(error);
    }
    if let Some(OnDemand { fd, port, home }) = asked {
        let (turns, netns, lease) =
            (Arc::clone(&world.turns), Arc::downgrade(&netns), Arc::downgrade(&lease));
        let within = listen_within.unwrap_or(LISTEN_WITHIN).0;
        tokio::spawn(Answers { turns, netns, lease, port, home, within }.give(fd));
    }
    let world = Arc::clone(world);
    tokio::spawn(async move {
        if told.await.is_ok() {
            wait_for_end(Ok(end)).await;
            held::go_on(&world, &netns, &lease).await;
        }
        end::end_lease(&world, &netns, &lease).await;
    });
    let leased = Leased {
        schema: SCHEMA,
        cookie: answer.cookie,
        rule: answer.rule,
        listeners: named,
        warnings: answer.warnings,
        foreign_programs: answer.foreign_programs,
        existing_connections: answer.existing_connections,
    };
    let listeners = made.into_iter().map(|(_, socket)| socket.into()).collect();
    Ok(HandedOff { leased, listeners, delivered, news })
}

/// `LISTEN_FDNAMES` are separated by colons, so they hold none.
fn named_listeners(listeners: &[LeasedSocket], target: &Target, rule: &RuleName) -> Vec<LeasedListener> {
    let target: String = target
        .to_string()
        .chars()
        .map(|one| if one == ':' || one.is_control() { '=' } else { one })
        .collect();
    // One for both families is there once for each, and in the message once.
    let once = listeners.iter().filter(|one| one.reach != Reach::Both || one.family == Family::Ipv6);
    once.map(|LeasedSocket { family, reach, address, .. }| {
        let dual = *reach == Reach::Both;
        let kind = if dual { "dual".to_owned() } else { family.to_string() };
        LeasedListener { family: *family, address: *address, name: format!("{target}/{rule}/{kind}"), dual }
    })
    .collect()
}
