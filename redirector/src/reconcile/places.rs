//! From what a user names to namespaces. All of it before anybody's turn: a container engine that does not answer must not hold
//! up other changes.

use std::{path::PathBuf, sync::Arc};

use super::{refused::Refused, world::World};
use crate::{
    config::Target,
    control::{Caller, Error},
    intent::HostNetns,
    locate::{OpenNetns, TargetError},
    netns::{self, NetnsCookie},
    steer::{Steered, blocking, failed},
};

/// Opens what somebody named.
///
/// # Errors
///
/// [`TargetError`].
pub(crate) async fn open(world: &World, target: Target, caller: Caller) -> Result<OpenNetns, TargetError> {
    world.opener.open(target, caller).await
}

/// The same, but that what a cookie means is known only to the table: `None`.
///
/// # Errors
///
/// [`TargetError`].
pub(crate) async fn open_unless_steered(
    world: &World,
    target: &Target,
    caller: Caller,
) -> Result<Option<OpenNetns>, TargetError> {
    match target {
        Target::Cookie(_) => Ok(None),
        _ => open(world, target.clone(), caller).await.map(Some),
    }
}

/// Opens a namespace that is steered, and named by its cookie.
///
/// # Errors
///
/// When it is not steered, or not any more.
pub(crate) fn open_again(world: &World, target: &Target) -> Result<OpenNetns, Error> {
    let known = match target {
        Target::Cookie(cookie) => world.steered.get(NetnsCookie(*cookie)),
        _ => None,
    };
    let known = known.ok_or_else(|| Refused::NotSteered(target.clone()))?;
    let fd = known.open().map_err(|error| failed("open", target, &error))?;
    Ok(OpenNetns {
        fd,
        file: known.file,
        path: PathBuf::new(),
        processes: Arc::default(),
        host: known.host,
        container: known.container.clone(),
    })
}

/// Whether the namespace is one that the user may mean.
///
/// # Errors
///
/// When it is the host's, and that was not said.
pub(crate) fn may_be_meant(
    target: &Target,
    opened: &OpenNetns,
    host_netns: HostNetns,
) -> Result<(), Refused> {
    match &opened.container {
        _ if !opened.host || host_netns == HostNetns::Allowed => Ok(()),
        // Who names it means it.
        None if *target == Target::Host => Ok(()),
        None => Err(Refused::Host(target.clone())),
        Some(_) => Err(Refused::HostOfContainer(target.clone())),
    }
}

/// Where a target led to.
pub(crate) struct Sought {
    target: Target,
    led_to: Result<NetnsCookie, Error>,
}

/// Goes where a target leads.
pub(crate) async fn seek(world: &World, target: &Target, caller: Caller) -> Sought {
    let led_to = match target {
        Target::Cookie(cookie) => Ok(NetnsCookie(*cookie)),
        _ => look_for(world, target, caller).await,
    };
    Sought { target: target.clone(), led_to }
}

async fn look_for(world: &World, target: &Target, caller: Caller) -> Result<NetnsCookie, Error> {
    let opened = open(world, target.clone(), caller).await?;
    cookie_of(opened, target).await.map(|(_, cookie)| cookie)
}

/// The cookie of a namespace that was opened.
///
/// # Errors
///
/// When it cannot be entered.
pub(crate) async fn cookie_of(opened: OpenNetns, target: &Target) -> Result<(OpenNetns, NetnsCookie), Error> {
    let named = target.clone();
    blocking(move || {
        let entered = netns::enter(&opened.fd, NetnsCookie::here);
        let entered = entered.map_err(|error| failed("enter", &named, &error))?;
        let cookie = entered.map_err(|error| failed("look at", &named, &error))?;
        Ok((opened, cookie))
    })
    .await
}

impl Sought {
    /// The namespace that the target leads to now, if it leads to one.
    pub(crate) fn cookie(&self) -> Option<NetnsCookie> {
        self.led_to.as_ref().ok().copied()
    }

    /// The steered namespace that was sought: by what its target opened, or, when there is nothing any more, by the
    /// text that it was attached with.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn find(&self, world: &World) -> Result<Arc<Steered>, Error> {
        let Self { target, led_to } = self;
        match led_to {
            Ok(cookie) => {
                world.steered.get(*cookie).ok_or_else(|| Refused::NotSteered(target.clone()).into())
            }
            Err(error) => world.steered.named(target).ok_or_else(|| error.clone()),
        }
    }
}
