//! From what a user names to namespaces. All of it before the lock: neither a container engine nor a name server that
//! does not answer may hold up other changes.

use std::{io, sync::Arc};

use super::{
    Supervisor, Table, blocking,
    elsewhere::{Elsewhere, Remote},
    failed,
    namespace::Namespace,
    not_steered,
    resolver::Resolver,
    rules::Whereabouts,
};
use crate::{
    config::{Destination, Host, RuleSpec, Target},
    control::{Caller, Code, Error},
    netns::{self, NetnsCookie},
    target::{self, OpenNetns, TargetError},
};

/// Where a target led to.
pub(super) struct Sought {
    target: Target,
    led_to: Result<NetnsCookie, Error>,
}

impl Sought {
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
        let caller = target::Caller { pid: caller.pid, uid: caller.uid.unwrap_or(u32::MAX) };
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
    pub(super) async fn whereabouts(&self, spec: &RuleSpec, caller: Caller) -> Result<Whereabouts, Error> {
        Ok(Whereabouts { resolver: resolver(spec).await?, elsewhere: self.elsewhere(spec, caller).await? })
    }

    /// The namespace of a destination that lies in one. It must be there when the rule is attached.
    async fn elsewhere(&self, spec: &RuleSpec, caller: Caller) -> Result<Option<Elsewhere>, Error> {
        let [destination @ Destination::Inside { target, .. }] = &spec.to[..] else { return Ok(None) };
        let opened = self.open(target.clone(), caller).await.map_err(Error::from);
        let opened = opened.map_err(|error| Error {
            message: format!("destination `{destination}`: {}", error.message),
            ..error
        })?;
        let named = target.clone();
        let look = move || Remote::location(opened).map_err(|error| failed("look at", &named, &error));
        let location = blocking(look).await?;
        Ok(Some(Elsewhere::new(target.clone(), self.opener.clone(), &self.remotes, location)))
    }
}

/// The addresses of a destination that has a name.
async fn resolver(spec: &RuleSpec) -> Result<Option<Resolver>, Error> {
    let [destination @ Destination::Host { host: Host::Name(name), .. }] = &spec.to[..] else {
        return Ok(None);
    };
    let resolver = Resolver::new(name).await.map_err(|source: io::Error| {
        Error::new(Code::Failed, format!("destination `{destination}`: resolve `{name}`: {source}"))
    })?;
    Ok(Some(resolver))
}
