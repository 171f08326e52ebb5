//! Where the destinations of rules are. Looked up before anybody's turn: neither a container engine nor a name server that does
//! not answer may hold up other changes.

use std::{sync::Arc, time::Duration};

use super::{places, world::World};
use crate::{
    config::{Destination, Host, RuleSpec, Target},
    control::{Caller, Code, Error},
    dial::{Door, Remote, Whereabouts, leads_through_process},
    netns::Location,
    steer::{blocking, failed},
};

/// What a destination that cannot be found makes of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// An error: whoever attaches the rule can mend it.
    Refused,
    /// A rule that is down until the destination is there. Whoever asks says now which process a destination means.
    Later,
    /// A rule that is down until the destination is there: nobody is there to mend it, or to say which process is meant.
    Down,
}

/// How long a destination is looked for whose rule can as well be down until it is there.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Waits for an answer; not for long where it can come later, too.
async fn soon<T>(missing: Missing, answer: impl Future<Output = T>) -> Option<T> {
    match missing {
        Missing::Refused => Some(answer.await),
        Missing::Later | Missing::Down => tokio::time::timeout(BRIEFLY, answer).await.ok(),
    }
}

/// What there is to know of a rule's destination.
pub(crate) async fn whereabouts(
    world: &World,
    spec: &RuleSpec,
    caller: Caller,
    missing: Missing,
) -> Result<Whereabouts, Error> {
    match &spec.to[..] {
        [destination @ Destination::Host { host: Host::Name(text), .. }] => {
            let name = world.names.get(text);
            match missing {
                Missing::Refused => name.resolve().await.map_err(|source| {
                    let message = format!("destination `{destination}`: resolve `{text}`: {source}");
                    Error::new(Code::Failed, message)
                })?,
                Missing::Later | Missing::Down => {
                    name.resolve_later();
                    drop(soon(missing, name.resolve()).await);
                }
            }
            Ok(Whereabouts { name: Some(name), ..Whereabouts::default() })
        }
        [destination @ Destination::Unix(path)] => {
            let (own, opener) = (Arc::clone(&world.own_sockets), world.opener.clone());
            let (to, message) = (path.clone(), format!("destination `{destination}`"));
            let judge = move || {
                let hint = "name the socket of the service that is meant";
                let refused = |why| Error::new(Code::Failed, format!("{message}: {why}")).with_hint(hint);
                own.judge(&to, &opener).map_err(refused)
            };
            let warning = blocking(judge).await?;
            let door = Some(Arc::new(Door::new(path.clone(), Arc::clone(&world.own_sockets))));
            Ok(Whereabouts { door, warning, ..Whereabouts::default() })
        }
        [destination @ Destination::Inside { target, .. }] => {
            let located = soon(missing, locate(world, destination, target, caller)).await;
            let location = match (located, missing) {
                (Some(Ok(location)), _) => Some(location),
                (Some(Err(Unlocated { error, .. })), Missing::Refused) => return Err(error),
                (Some(Err(Unlocated { error, is_missing: false })), Missing::Later) => return Err(error),
                _ => None,
            };
            // Nobody is there to say which process is meant by now.
            let is_meant = |location: &Location| {
                missing != Missing::Down || !leads_through_process(target, &location.processes)
            };
            let location = location.filter(is_meant);
            let elsewhere = world.remotes.elsewhere(target, &world.opener, location);
            Ok(Whereabouts { elsewhere: Some(elsewhere), ..Whereabouts::default() })
        }
        _ => Ok(Whereabouts::default()),
    }
}

/// Why a destination's namespace could not be looked at.
struct Unlocated {
    error: Error,
    /// It may come by itself.
    is_missing: bool,
}

/// The namespace of a destination that lies in one.
async fn locate(
    world: &World,
    destination: &Destination,
    target: &Target,
    caller: Caller,
) -> Result<Location, Unlocated> {
    let opened = places::open(world, target.clone(), caller).await;
    let opened = opened.map_err(|error| {
        let is_missing = error.is_missing();
        let error = Error::from(error);
        let message = format!("destination `{destination}`: {}", error.message);
        Unlocated { error: Error { message, ..error }, is_missing }
    })?;
    let named = target.clone();
    let look = move || Remote::location(opened).map_err(|error| failed("look at", &named, &error));
    blocking(look).await.map_err(|error| Unlocated { error, is_missing: false })
}
