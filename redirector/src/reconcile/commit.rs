//! Makes everything that a plan needs, then switches to it. Until the last switch everything can be taken back.

use std::sync::Arc;

use futures_util::{StreamExt as _, future::join_all, stream};

use super::{
    part::{Consumer, Part, Plan},
    world::World,
};
use crate::{
    control::{Code, Error},
    steer::{
        How, Ready, RuleTable, Steered, Switch, blocking, failed, make_sockets, prepare, settle, slots,
        switch, switch_back,
    },
};

/// Namespaces that are made at once.
const AT_ONCE: usize = 16;

/// Why a plan was not done.
#[derive(Debug)]
pub(crate) struct Undone {
    pub(crate) error: Error,
    /// Where it is entries of a request that are to blame: each, and why.
    pub(crate) blamed: Vec<(usize, Error)>,
}

/// What was made and is not in force.
#[derive(Default)]
struct Made {
    /// Namespaces that are not steered yet.
    new: Vec<(Part, Ready)>,
    /// Other rules.
    other: Vec<(Part, Arc<Steered>, Switch)>,
    /// Namespaces that are let go of.
    ending: Vec<(Part, Arc<Steered>)>,
}

/// One of them.
enum One {
    New(Part, Ready),
    Other(Part, Arc<Steered>, Switch),
    Ending(Part, Arc<Steered>),
    /// The kernel needs nothing.
    Same,
}

/// What is in force.
#[derive(Default)]
struct Done {
    new: Vec<(Part, Arc<Steered>)>,
    /// With the way back.
    other: Vec<(Part, Arc<Steered>, Switch)>,
}

/// Does what a plan says, or nothing. `verb` is what is being done, for errors. Who calls has the turn of all that it is about.
///
/// # Errors
///
/// What could not be made, or put into force.
pub(crate) async fn commit(world: &World, verb: &'static str, plan: Plan) -> Result<(), Undone> {
    let Plan { parts, edit } = plan;
    let mut made = make_all(world, verb, parts).await?;
    let ending = std::mem::take(&mut made.ending);
    let done = switch_all(world, verb, made).await?;
    // From here on nothing fails.
    let mut gone = Vec::new();
    for (part, netns) in &done.new {
        world.steered.insert(netns);
        settle_part(part, netns);
    }
    for (part, netns, _) in &done.other {
        settle(netns);
        part.found.iter().for_each(|found| netns.watched.named_by(&found.named_by));
        part.foreign.clone().into_iter().for_each(|found| netns.set_foreign_programs(found));
        settle_part(part, netns);
        gone.extend(part.gone());
    }
    for (part, netns) in &ending {
        world.steered.remove(netns.cookie);
        gone.extend(part.gone());
    }
    world.intend(edit);
    world.look_at_namesakes(&gone);
    // Each waits for its handshakes.
    join_all(ending.iter().map(|(_, netns)| let_go(world, netns))).await;
    Ok(())
}

/// Stops steering a namespace. What is relayed goes on, and is waited for elsewhere.
async fn let_go(world: &World, netns: &Arc<Steered>) {
    netns.end(How::Detach).await;
    world.maker.selves.remove(netns.cookie);
    world.draining.push(netns);
}

async fn make_all(world: &World, verb: &'static str, parts: Vec<Part>) -> Result<Made, Undone> {
    let making = stream::iter(parts).map(|part| make_part(world, verb, part)).buffer_unordered(AT_ONCE);
    let all: Vec<_> = making.collect().await;
    let (mut made, mut failure) = (Made::default(), None);
    for one in all {
        match one {
            Ok(One::New(part, ready)) => made.new.push((part, ready)),
            Ok(One::Other(part, netns, switch)) => made.other.push((part, netns, switch)),
            Ok(One::Ending(part, netns)) => made.ending.push((part, netns)),
            Ok(One::Same) => {}
            Err(error) => failure = Some(worse(failure, error)),
        }
    }
    match failure {
        None => Ok(made),
        Some(error) => {
            undo(made).await;
            Err(error)
        }
    }
}

async fn make_part(world: &World, verb: &'static str, part: Part) -> Result<One, Undone> {
    let blamed = part.blamed;
    make(world, verb, part).await.map_err(|error| undone(blamed, error))
}

async fn make(world: &World, verb: &'static str, part: Part) -> Result<One, Error> {
    let netns = world.steered.get(part.cookie);
    let Some(rules) = part.table.clone() else {
        return Ok(match netns {
            Some(netns) if part.rules.is_empty() => One::Ending(part, netns),
            _ => One::Same,
        });
    };
    match (netns, part.found.clone()) {
        (Some(netns), _) => {
            let switch = prepare_part(&netns, verb, &part, rules).await;
            let switch = switch.inspect_err(|_| settle(&netns))?;
            Ok(One::Other(part, netns, switch))
        }
        (None, Some(found)) => {
            let foreign = part.foreign.clone().unwrap_or_default();
            let ready = world.maker.make(&part.target, &found, rules, foreign).await?;
            if let Some(Consumer { consumer, listeners }) = &part.own
                && let Err(error) =
                    slots::fill_consumer(&ready.netns.instance, *consumer, listeners, &part.target)
            {
                ready.netns.end(How::Abort).await;
                return Err(error);
            }
            Ok(One::New(part, ready))
        }
        // It has ended meanwhile, and nothing comes.
        (None, None) => Ok(One::Same),
    }
}

/// All that other rules need, in a namespace that is steered.
async fn prepare_part(
    netns: &Arc<Steered>,
    verb: &'static str,
    part: &Part,
    rules: Arc<RuleTable>,
) -> Result<Switch, Error> {
    let opened = match &part.found {
        Some(found) => found.fd.try_clone(),
        None => netns.open(),
    };
    let fd = opened.map_err(|error| failed("open", &part.target, &error))?;
    make_sockets(netns, fd, rules.needs()).await?;
    if let Some(Consumer { consumer, listeners }) = &part.own {
        // Somebody may still hold listeners that had this consumer's number before.
        slots::empty_consumer(&netns.instance, *consumer);
        slots::fill_consumer(&netns.instance, *consumer, listeners, &netns.target)?;
    }
    let (netns, target) = (Arc::clone(netns), part.target.clone());
    blocking(move || prepare(&netns, rules).map_err(|error| failed(verb, &target, &error))).await
}

/// Switches to what was made. Gives what is in force.
async fn switch_all(world: &World, verb: &'static str, made: Made) -> Result<Done, Undone> {
    let Made { new, other, ending: _ } = made;
    let (mut done, mut failure) = (Done::default(), None);
    // Each waits until no packet is being decided by what was before: together they wait once.
    let switching = stream::iter(other).map(|(part, netns, switch)| async move {
        let switched = switch_to(&netns, verb, &part, switch).await;
        (part, netns, switched)
    });
    let all: Vec<_> = switching.buffer_unordered(AT_ONCE).collect().await;
    for (part, netns, switched) in all {
        match switched {
            Ok(back) => done.other.push((part, netns, back)),
            Err(error) => {
                settle(&netns);
                failure = Some(worse(failure, undone(part.blamed, error)));
            }
        }
    }
    let mut new = new.into_iter();
    while failure.is_none()
        && let Some((part, ready)) = new.next()
    {
        match world.maker.start(&part.target, &ready).await {
            Ok(()) => done.new.push((part, ready.netns)),
            Err(error) => failure = Some(undone(part.blamed, error)),
        }
    }
    let Some(failure) = failure else { return Ok(done) };
    join_all(done.new.iter().map(|(_, netns)| let_go(world, netns))).await;
    for (part, netns, back) in done.other {
        if let Err(error) = back_to(&netns, back).await {
            tracing::error!(netns = %part.target, %error, "go back to the rules before");
        }
    }
    undo(Made { new: new.collect(), ..Made::default() }).await;
    Err(failure)
}

fn undone(blamed: Option<usize>, error: Error) -> Undone {
    Undone { blamed: blamed.map(|entry| (entry, error.clone())).into_iter().collect(), error }
}

/// Of two failures the one that nothing of the request is to blame for, else both.
fn worse(before: Option<Undone>, failure: Undone) -> Undone {
    match before {
        Some(before) if before.blamed.is_empty() => before,
        Some(before) if !failure.blamed.is_empty() => {
            Undone { blamed: [before.blamed, failure.blamed].concat(), ..failure }
        }
        _ => failure,
    }
}

/// Takes back what was made.
async fn undo(made: Made) {
    for (_, ready) in made.new {
        ready.netns.end(How::Abort).await;
    }
    for (part, netns, switch) in made.other {
        drop(switch);
        if let Some(Consumer { consumer, .. }) = part.own {
            slots::empty_consumer(&netns.instance, consumer);
        }
        settle(&netns);
    }
}

async fn switch_to(
    netns: &Arc<Steered>,
    verb: &'static str,
    part: &Part,
    next: Switch,
) -> Result<Switch, Error> {
    let (netns, target, begun) = (Arc::clone(netns), part.target.clone(), part.reset.before.clone());
    blocking(move || {
        let error = |source: &(dyn std::error::Error + 'static)| failed(verb, &target, source);
        let counters = &netns.instance.counters;
        begun
            .into_iter()
            .try_for_each(|index| counters.reset_rule(index))
            .map_err(|source| error(&source))?;
        switch(&netns, next).map_err(|source| error(&source))
    })
    .await
}

async fn back_to(netns: &Arc<Steered>, back: Switch) -> Result<(), Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let back = switch_back(&netns, back).map_err(|error| Error::chain(Code::Failed, &error));
        settle(&netns);
        back
    })
    .await
}

/// What rules in force entail.
fn settle_part(part: &Part, netns: &Arc<Steered>) {
    // Those that rules had until now which are gone.
    for index in &part.reset.after {
        if let Err(error) = netns.instance.counters.reset_rule(*index) {
            tracing::error!(netns = %netns.target, %error, "begin the counters of a new rule anew");
        }
    }
    for state in part.new.iter().filter(|state| state.is_down()) {
        netns.tell_down(state);
    }
    // A destination may have died since it was looked up, which is told to those that are in the table.
    netns.take_down_gone();
}
