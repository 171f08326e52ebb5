//! What is found out about a namespace before anything is changed there.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use super::error::{blocking, failed};
use crate::{
    config::{RuleSpec, Target},
    control::Error,
    kernel::{self, AttachedProgram},
    locate::{ContainerId, OpenNetns},
    netns::{self, Bystander, NetnsCookie, NetnsFile, ProcessLink, Survey},
};

/// What was found out about a namespace, before anything is changed there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fd: OwnedFd,
    pub(crate) file: NetnsFile,
    pub(crate) cookie: NetnsCookie,
    pub(crate) survey: Survey,
    pub(crate) bystanders: Vec<Bystander>,
    pub(crate) programs: Vec<AttachedProgram>,
    pub(crate) existing_connections: u64,
    pub(crate) container: Option<ContainerId>,
    pub(crate) host: bool,
    /// Links of processes that have it open, by which it was named.
    pub(crate) named_by: Arc<[ProcessLink]>,
}

/// Goes and looks, and changes nothing. Connections that are open are counted that a rule would have taken.
pub(crate) async fn find_out(
    opened: OpenNetns,
    target: &Target,
    spec: Option<&RuleSpec>,
) -> Result<Found, Error> {
    let OpenNetns { fd, file, container, host, processes, .. } = opened;
    // A process that is in it is found without.
    let is_one = |link: &ProcessLink| !link.is_of_member();
    let named_by = if processes.iter().any(is_one) { processes } else { Arc::default() };
    let spec = spec.cloned();
    let target = target.clone();
    blocking(move || {
        let accepts = |spec: &RuleSpec| netns::established(|ends| spec.takes(ends.remote.ip(), ends.local));
        let error = |error: &(dyn std::error::Error + 'static)| failed("look at", &target, error);
        let look = || {
            let cookie = NetnsCookie::here().map_err(std::io::Error::other)?;
            let (survey, bystanders) = (netns::survey()?, netns::bystanders()?);
            std::io::Result::Ok((cookie, survey, bystanders, spec.as_ref().map_or(Ok(0), accepts)?))
        };
        let (cookie, survey, bystanders, existing_connections) =
            netns::enter(&fd, look).and_then(|result| result).map_err(|source| error(&source))?;
        let programs = kernel::attached_programs(fd.as_fd()).map_err(|source| error(&source))?;
        Ok(Found {
            fd,
            file,
            cookie,
            survey,
            bystanders,
            programs,
            existing_connections,
            container,
            host,
            named_by,
        })
    })
    .await
}
