//! What the daemon can be asked for.

use std::{os::fd::OwnedFd, sync::Arc};

use super::Daemon;
use crate::{
    config::Target,
    control::{
        Api, Applied, ApplyRequest, AttachRequest, Attached, Caller, DetachRequest, Detached, Error,
        ExplainRequest, Explanation, Exported, LeaseRequest, Leased, Leases, Listing, Receiver, Shadows,
    },
    reconcile, report,
};

impl Api for Daemon {
    async fn attach(self: Arc<Self>, caller: Caller, request: AttachRequest) -> Result<Attached, Error> {
        reconcile::attach(&self.world, caller, request).await
    }

    async fn detach(self: Arc<Self>, caller: Caller, request: DetachRequest) -> Result<Detached, Error> {
        reconcile::detach(&self.world, caller, request).await
    }

    async fn apply(self: Arc<Self>, caller: Caller, request: ApplyRequest) -> Result<Applied, Error> {
        reconcile::apply(&self.world, caller, request).await
    }

    async fn export(self: Arc<Self>, caller: Caller) -> Result<Exported, Error> {
        Ok(report::exported(&self.world, caller).await)
    }

    async fn list(self: Arc<Self>, caller: Caller, target: Option<Target>) -> Result<Listing, Error> {
        report::listing(&self.world, caller, target).await
    }

    async fn explain(self: Arc<Self>, caller: Caller, request: ExplainRequest) -> Result<Explanation, Error> {
        report::explanation(&self.world, caller, request).await
    }

    async fn shadowed(self: Arc<Self>, caller: Caller, target: Target) -> Result<Shadows, Error> {
        report::shadows(&self.world, &self.shadowing, caller, target).await
    }
}

impl Leases for Daemon {
    type Keeper = reconcile::Keeper;

    async fn lease(
        self: Arc<Self>,
        receiver: Receiver,
        request: LeaseRequest,
    ) -> Result<(Leased, Vec<OwnedFd>, reconcile::Keeper), Error> {
        reconcile::lease(&self.world, receiver, request).await
    }
}
