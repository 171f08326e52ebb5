//! Makes everything that a plan needs, then switches to it. Until the last switch everything can be taken back.

use std::sync::Arc;

use super::part::{Part, Plan};
use crate::{
    control::{Code, Error},
    supervisor::{
        Supervisor, Table,
        attach::{Ready, make_black_hole},
        blocking, failed,
        namespace::{Namespace, Switch},
        rules::RuleTable,
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
        let Plan { parts, followed, unfollowed, .. } = plan;
        let made = self.make_all(parts).await?;
        let ending = made.ending.clone();
        let (done, same) = self.switch_all(made).await?;
        // From here on nothing fails.
        for (part, netns) in &done.new {
            table.insert(netns.cookie, Arc::clone(netns));
            settle(part, netns);
        }
        for (part, netns, _) in &done.other {
            netns.let_go_of_black_hole();
            netns.set_foreign_programs(part.foreign.clone());
            settle(part, netns);
        }
        same.iter().for_each(give_to_file);
        for netns in ending {
            table.remove(&netns.cookie);
            self.let_go(&netns).await;
        }
        self.follows.replace(followed, &unfollowed);
        Ok(())
    }

    async fn make_all(&self, parts: Vec<Part>) -> Result<Made, Error> {
        let mut made = Made::default();
        for part in parts {
            if let Err(error) = self.make_part(part, &mut made).await {
                undo(made).await;
                return Err(error);
            }
        }
        Ok(made)
    }

    async fn make_part(&self, mut part: Part, made: &mut Made) -> Result<(), Error> {
        let Some(rules) = part.table.clone() else {
            match &part.netns {
                Some(netns) if part.rules.is_empty() => made.ending.push(Arc::clone(netns)),
                _ => made.same.push(part),
            }
            return Ok(());
        };
        let found = part.found.take();
        if let Some(netns) = part.netns.clone() {
            let switch = prepare(&netns, &part, found.map(|found| found.fd), rules).await;
            let switch = switch.inspect_err(|_| netns.let_go_of_black_hole())?;
            made.other.push((part, netns, switch));
        } else if let Some(found) = found {
            let ready = self.make(&part.target, found, rules, part.foreign.clone()).await?;
            made.new.push((part, ready));
        }
        Ok(())
    }

    /// Switches to what was made. Gives that, and what needed no switch.
    async fn switch_all(&self, made: Made) -> Result<(Done, Vec<Part>), Error> {
        let Made { mut new, mut other, ending: _, same } = made;
        let mut done = Done::default();
        let failure = loop {
            if !other.is_empty() {
                let (part, netns, switch) = other.remove(0);
                match switch_to(&netns, &part, switch).await {
                    Ok(back) => done.other.push((part, netns, back)),
                    Err(error) => {
                        netns.let_go_of_black_hole();
                        break error;
                    }
                }
            } else if !new.is_empty() {
                let (part, ready) = new.remove(0);
                match self.start_steering(&part.target, &ready).await {
                    Ok(()) => done.new.push((part, ready.netns)),
                    Err(error) => break error,
                }
            } else {
                return Ok((done, same));
            }
        };
        for (_, netns) in done.new {
            self.let_go(&netns).await;
        }
        for (part, netns, back) in done.other.into_iter().rev() {
            if let Err(error) = switch_back(&netns, back).await {
                tracing::error!(netns = %part.target, %error, "go back to the rules before");
            }
        }
        undo(Made { new, other, ..Made::default() }).await;
        Err(failure)
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
    make_black_hole(netns, fd, rules.can_drop()).await?;
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
        netns.let_go_of_black_hole();
    }
}

async fn switch_to(netns: &Arc<Namespace>, part: &Part, switch: Switch) -> Result<Switch, Error> {
    let (netns, target, (first, then)) = (Arc::clone(netns), part.target.clone(), part.reset.clone());
    blocking(move || {
        let error = |source: &(dyn std::error::Error + 'static)| failed("apply", &target, source);
        let counters = &netns.instance.counters;
        let reset = |indices: Vec<u32>| indices.into_iter().try_for_each(|index| counters.reset_rule(index));
        reset(first).map_err(|source| error(&source))?;
        let before = netns.published.load_full();
        let back = netns.switch(switch, before).map_err(|source| error(&source))?;
        if let Err(error) = reset(then) {
            tracing::error!(netns = %target, %error, "begin the counters of a new rule anew");
        }
        Ok(back)
    })
    .await
}

async fn switch_back(netns: &Arc<Namespace>, back: Switch) -> Result<(), Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let now = netns.published.load_full();
        let back = netns.switch(back, now).map_err(|error| Error::chain(Code::Failed, &error));
        netns.let_go_of_black_hole();
        back.map(drop)
    })
    .await
}

fn give_to_file(part: &Part) {
    part.kept.iter().for_each(|state| state.give_to_file());
}

/// What rules in force entail.
fn settle(part: &Part, netns: &Arc<Namespace>) {
    give_to_file(part);
    for state in part.new.iter().filter(|state| state.is_down()) {
        netns.tell_down(state);
    }
}
