//! From what a user names to namespaces. All of it before the lock: neither a container engine nor a name server that
//! does not answer may hold up other changes.

use std::{sync::Arc, time::Duration};

use super::{Supervisor, Table, blocking, failed, namespace::Namespace, not_steered};
use crate::{
    config::{Destination, Host, RuleSpec, Target},
    control::{Caller, Code, Error},
    dial::{Door, Remote, Whereabouts, leads_through_process},
    locate::{self, OpenNetns, TargetError},
    netns::{self, Location, NetnsCookie},
};

/// What a destination that cannot be found makes of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// An error: whoever attaches the rule can mend it.
    Refused,
    /// A rule that is down until the destination is there: nobody is there to mend it.
    Down,
}

/// How long a destination is looked for whose rule can as well be down until it is there.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Waits for an answer; not for long where it can come later, too.
async fn soon<T>(missing: Missing, answer: impl Future<Output = T>) -> Option<T> {
    match missing {
        Missing::Refused => Some(answer.await),
        Missing::Down => tokio::time::timeout(BRIEFLY, answer).await.ok(),
    }
}

/// Where a target led to.
pub(super) struct Sought {
    target: Target,
    led_to: Result<NetnsCookie, Error>,
}

impl Sought {
    /// The namespace that the target leads to now, if it leads to one.
    pub(super) fn cookie(&self) -> Option<NetnsCookie> {
        self.led_to.as_ref().ok().copied()
    }

    /// The steered namespace that was sought: by what its target opened, or, when there is nothing any more, by the
    /// text that it was attached with.
    pub(super) fn find(self, table: &Table) -> Result<Arc<Namespace>, Error> {
        let Self { target, led_to } = self;
        match led_to {
            Ok(cookie) => table.get(&cookie).cloned().ok_or_else(|| not_steered(&target)),
            Err(error) => table.values().find(|netns| netns.target == target).cloned().ok_or(error),
        }
    }
}

impl Supervisor {
    /// Opens what the user named.
    pub(super) async fn open(&self, target: Target, caller: Caller) -> Result<OpenNetns, TargetError> {
        let caller = locate::Caller { pid: caller.pid, uid: caller.uid.unwrap_or(u32::MAX) };
        self.opener.open(target, caller).await
    }

    /// Goes where a target leads.
    pub(super) async fn seek(&self, target: &Target, caller: Caller) -> Sought {
        let led_to = match target {
            Target::Cookie(cookie) => Ok(NetnsCookie(*cookie)),
            _ => self.cookie_of(target, caller).await,
        };
        Sought { target: target.clone(), led_to }
    }

    async fn cookie_of(&self, target: &Target, caller: Caller) -> Result<NetnsCookie, Error> {
        let opened = self.open(target.clone(), caller).await?;
        let named = target.clone();
        blocking(move || {
            let entered = netns::enter(&opened.fd, NetnsCookie::here);
            let entered = entered.map_err(|error| failed("enter", &named, &error))?;
            entered.map_err(|error| failed("look at", &named, &error))
        })
        .await
    }

    /// What there is to know of a rule's destination.
    pub(super) async fn whereabouts(
        &self,
        spec: &RuleSpec,
        caller: Caller,
        missing: Missing,
    ) -> Result<Whereabouts, Error> {
        match &spec.to[..] {
            [destination @ Destination::Host { host: Host::Name(text), .. }] => {
                let name = self.names.get(text);
                match missing {
                    Missing::Refused => name.resolve().await.map_err(|source| {
                        let message = format!("destination `{destination}`: resolve `{text}`: {source}");
                        Error::new(Code::Failed, message)
                    })?,
                    Missing::Down => {
                        name.resolve_later();
                        drop(soon(missing, name.resolve()).await);
                    }
                }
                Ok(Whereabouts { name: Some(name), ..Whereabouts::default() })
            }
            [destination @ Destination::Unix(path)] => {
                let (own, opener) = (Arc::clone(&self.own_sockets), self.opener.clone());
                let (to, message) = (path.clone(), format!("destination `{destination}`"));
                let judge = move || {
                    let hint = "name the socket of the service that is meant";
                    let refused = |why| Error::new(Code::Failed, format!("{message}: {why}")).with_hint(hint);
                    own.judge(&to, &opener).map_err(refused)
                };
                let warning = blocking(judge).await?;
                let door = Some(Arc::new(Door::new(path.clone(), Arc::clone(&self.own_sockets))));
                Ok(Whereabouts { door, warning, ..Whereabouts::default() })
            }
            [destination @ Destination::Inside { target, .. }] => {
                let located = soon(missing, self.locate(destination, target, caller)).await;
                let location = match (located, missing) {
                    (Some(Ok(location)), _) => Some(location),
                    (Some(Err(error)), Missing::Refused) => return Err(error),
                    _ => None,
                };
                // Nobody is there to say which process is meant by now.
                let is_meant = |location: &Location| {
                    missing == Missing::Refused || !leads_through_process(target, &location.processes)
                };
                let location = location.filter(is_meant);
                let elsewhere = self.remotes.elsewhere(target, &self.opener, location);
                Ok(Whereabouts { elsewhere: Some(elsewhere), ..Whereabouts::default() })
            }
            _ => Ok(Whereabouts::default()),
        }
    }

    /// The namespace of a destination that lies in one.
    async fn locate(
        &self,
        destination: &Destination,
        target: &Target,
        caller: Caller,
    ) -> Result<Location, Error> {
        let opened = self.open(target.clone(), caller).await.map_err(Error::from);
        let opened = opened.map_err(|error| Error {
            message: format!("destination `{destination}`: {}", error.message),
            ..error
        })?;
        let named = target.clone();
        let look = move || Remote::location(opened).map_err(|error| failed("look at", &named, &error));
        blocking(look).await
    }
}
