//! Makes everything that a plan needs, then switches to it. Until the last switch everything can be taken back.

use std::sync::Arc;

use futures_util::{StreamExt as _, future::join_all, stream};

use super::{
    AT_ONCE,
    part::{Part, Plan},
};
use crate::{
    control::{Code, Error},
    supervisor::{
        Supervisor, Table,
        attach::Ready,
        blocking, failed,
        namespace::{Namespace, Switch},
        rules::RuleTable,
        sockets::make_sockets,
    },
};

/// What was made and is not in force.
#[derive(Default)]
struct Made {
    /// Namespaces that are not steered yet.
    new: Vec<(Part, Ready)>,
    /// Other rules.
    other: Vec<(Part, Arc<Namespace>, Switch)>,
    /// Namespaces that are let go of.
    ending: Vec<Arc<Namespace>>,
    /// Where the kernel needs nothing.
    same: Vec<Part>,
}

/// One of them.
enum One {
    New(Part, Ready),
    Other(Part, Arc<Namespace>, Switch),
    Ending(Arc<Namespace>),
    Same(Part),
}

/// What is in force.
#[derive(Default)]
struct Done {
    new: Vec<(Part, Arc<Namespace>)>,
    /// With the way back.
    other: Vec<(Part, Arc<Namespace>, Switch)>,
}

impl Supervisor {
    /// Does what the plan says, or nothing.
    pub(super) async fn commit(&self, table: &mut Table, plan: Plan) -> Result<(), Error> {
        let Plan { parts, followed, unfollowed, only_adds, .. } = plan;
        let made = self.make_all(parts).await?;
        let ending = made.ending.clone();
        let (done, same) = self.switch_all(made).await?;
        // From here on nothing fails.
        for (part, netns) in &done.new {
            table.insert(netns.cookie, Arc::clone(netns));
            settle(part, netns);
        }
        for (part, netns, _) in &done.other {
            netns.settle_sockets();
            part.foreign.clone().into_iter().for_each(|found| netns.set_foreign_programs(found));
            settle(part, netns);
        }
        same.iter().for_each(give_to_file);
        for netns in &ending {
            table.remove(&netns.cookie);
        }
        // Each waits for its handshakes.
        join_all(ending.iter().map(|netns| self.let_go(netns))).await;
        if only_adds {
            self.follows.add(followed, &unfollowed);
        } else {
            self.follows.replace(followed, &unfollowed);
        }
        Ok(())
    }

    async fn make_all(&self, parts: Vec<Part>) -> Result<Made, Error> {
        let making = stream::iter(parts).map(|part| self.make_part(part)).buffer_unordered(AT_ONCE);
        let all: Vec<_> = making.collect().await;
        let (mut made, mut failure) = (Made::default(), None);
        for one in all {
            match one {
                Ok(One::New(part, ready)) => made.new.push((part, ready)),
                Ok(One::Other(part, netns, switch)) => made.other.push((part, netns, switch)),
                Ok(One::Ending(netns)) => made.ending.push(netns),
                Ok(One::Same(part)) => made.same.push(part),
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

    async fn make_part(&self, mut part: Part) -> Result<One, Error> {
        let Some(rules) = part.table.clone() else {
            return Ok(match &part.netns {
                Some(netns) if part.rules.is_empty() => One::Ending(Arc::clone(netns)),
                _ => One::Same(part),
            });
        };
        match (part.netns.clone(), part.found.take()) {
            (Some(netns), found) => {
                let switch = prepare(&netns, &part, found.map(|found| found.fd), rules).await;
                let switch = switch.inspect_err(|_| netns.settle_sockets());
                let switch = switch.map_err(|error| part.blame(error))?;
                Ok(One::Other(part, netns, switch))
            }
            (None, Some(found)) => {
                let foreign = part.foreign.clone().unwrap_or_default();
                let ready = self.make(&part.target, found, rules, foreign).await;
                let ready = ready.map_err(|error| part.blame(error))?;
                Ok(One::New(part, ready))
            }
            (None, None) => Ok(One::Same(part)),
        }
    }

    /// Switches to what was made. Gives that, and what needed no switch.
    async fn switch_all(&self, made: Made) -> Result<(Done, Vec<Part>), Error> {
        let Made { new, other, ending: _, same } = made;
        let (mut done, mut failure) = (Done::default(), None);
        // Each waits until no packet is being decided by what was before: together they wait once.
        let switching = stream::iter(other).map(|(part, netns, switch)| async move {
            let back = switch_to(&netns, &part, switch).await;
            (part, netns, back)
        });
        let all: Vec<_> = switching.buffer_unordered(AT_ONCE).collect().await;
        for (part, netns, back) in all {
            match back {
                Ok(back) => done.other.push((part, netns, back)),
                Err(error) => {
                    netns.settle_sockets();
                    failure = Some(worse(failure, part.blame(error)));
                }
            }
        }
        let mut new = new.into_iter();
        while failure.is_none()
            && let Some((part, ready)) = new.next()
        {
            match self.start_steering(&part.target, &ready).await {
                Ok(()) => done.new.push((part, ready.netns)),
                Err(error) => failure = Some(part.blame(error)),
            }
        }
        let Some(failure) = failure else { return Ok((done, same)) };
        join_all(done.new.iter().map(|(_, netns)| self.let_go(netns))).await;
        for (part, netns, back) in done.other {
            if let Err(error) = switch_back(&netns, back).await {
                tracing::error!(netns = %part.target, %error, "go back to the rules before");
            }
        }
        undo(Made { new: new.collect(), ..Made::default() }).await;
        Err(failure)
    }
}

/// Of two failures the one that is not only of what was found, else both.
fn worse(before: Option<Error>, error: Error) -> Error {
    match before {
        Some(before) if before.problems.is_empty() => before,
        Some(before) if !error.problems.is_empty() => {
            let problems = [before.problems, error.problems.clone()].concat();
            Error { problems, ..error }
        }
        _ => error,
    }
}

/// All that other rules need, in a namespace that is steered.
async fn prepare(
    netns: &Arc<Namespace>,
    part: &Part,
    fd: Option<std::os::fd::OwnedFd>,
    rules: Arc<RuleTable>,
) -> Result<Switch, Error> {
    let fd = match fd {
        Some(fd) => fd,
        None => netns.open().map_err(|error| failed("open", &part.target, &error))?,
    };
    make_sockets(netns, fd, rules.needs()).await?;
    let (netns, target) = (Arc::clone(netns), part.target.clone());
    blocking(move || netns.prepare(rules).map_err(|error| failed("apply", &target, &error))).await
}

/// Takes back what was made.
async fn undo(made: Made) {
    for (_, ready) in made.new {
        ready.netns.abort().await;
    }
    for (_, netns, switch) in made.other {
        drop(switch);
        netns.settle_sockets();
    }
}

async fn switch_to(netns: &Arc<Namespace>, part: &Part, switch: Switch) -> Result<Switch, Error> {
    let (netns, target, begun) = (Arc::clone(netns), part.target.clone(), part.reset.0.clone());
    blocking(move || {
        let error = |source: &(dyn std::error::Error + 'static)| failed("apply", &target, source);
        let counters = &netns.instance.counters;
        begun
            .into_iter()
            .try_for_each(|index| counters.reset_rule(index))
            .map_err(|source| error(&source))?;
        let before = netns.published.load_full();
        netns.switch(switch, before).map_err(|source| error(&source))
    })
    .await
}

async fn switch_back(netns: &Arc<Namespace>, back: Switch) -> Result<(), Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let back = netns.switch_back(back).map_err(|error| Error::chain(Code::Failed, &error));
        netns.settle_sockets();
        back
    })
    .await
}

fn give_to_file(part: &Part) {
    part.kept.iter().for_each(|state| state.give_to_file());
}

/// What rules in force entail.
fn settle(part: &Part, netns: &Arc<Namespace>) {
    give_to_file(part);
    // Those that rules had until now which are gone.
    for index in &part.reset.1 {
        if let Err(error) = netns.instance.counters.reset_rule(*index) {
            tracing::error!(netns = %netns.target, %error, "begin the counters of a new rule anew");
        }
    }
    for state in part.new.iter().filter(|state| state.is_down()) {
        netns.tell_down(state);
    }
}
