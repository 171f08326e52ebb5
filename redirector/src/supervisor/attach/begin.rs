//! Everything that a namespace needs which is not steered yet.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use redirector_ebpf::{PROTOCOL_TCP, slot};

use super::survey::Found;
use crate::{
    config::Target,
    control::Error,
    dial::{Dialer, Itself, SourcePorts},
    kernel::{AttachedProgram, Ingress, Instance},
    listener::Bound,
    netns::SocketFactory,
    supervisor::{
        Supervisor, blocking, failed,
        namespace::{Namespace, Parts},
        rules::RuleTable,
        sockets::{self, make_sockets},
    },
};

/// A namespace that can be steered from now on.
pub(in crate::supervisor) struct Ready {
    pub(in crate::supervisor) netns: Arc<Namespace>,
    fd: OwnedFd,
    inside: Arc<Itself>,
}

impl Supervisor {
    /// Makes everything for a namespace that is not steered yet, and starts to steer it.
    pub(super) async fn begin(
        &self,
        target: &Target,
        found: Found,
        rules: RuleTable,
        foreign_programs: Vec<AttachedProgram>,
        (consumer, listeners): (u32, &Bound),
    ) -> Result<Arc<Namespace>, Error> {
        let ready = self.make(target, found, Arc::new(rules), foreign_programs).await?;
        if let Err(error) = fill_consumer(&ready.netns.instance, consumer, listeners, target) {
            ready.netns.abort().await;
            return Err(error);
        }
        self.start_steering(target, &ready).await?;
        Ok(ready.netns)
    }

    /// Makes everything for a namespace that is not steered yet, but the link, which is what counts. Who does not start it
    /// aborts it.
    pub(in crate::supervisor) async fn make(
        &self,
        target: &Target,
        found: Found,
        rules: Arc<RuleTable>,
        foreign_programs: Vec<AttachedProgram>,
    ) -> Result<Ready, Error> {
        let Found { fd, file, cookie, survey, container, host, .. } = found;
        let of_rules = Arc::clone(&rules);
        let (for_error, shared) = (target.clone(), Arc::clone(&self.kernel));
        let (fd, for_sockets, anchor, instance) = blocking(move || {
            let error = |error: &(dyn std::error::Error + 'static)| failed("attach", &for_error, error);
            let anchor = sockets::anchor(&fd, cookie, &for_error)?;
            let for_sockets = fd.try_clone().map_err(|source| error(&source))?;
            let (rule_set, count) = (&of_rules.rule_set, of_rules.counters());
            let loaded = Instance::load_with(&shared, rule_set, count, Ingress::Read);
            let instance = loaded.map_err(|source| match source.raw_os_error() {
                Some(nix::libc::EPERM | nix::libc::EINVAL) => error(&source)
                    .with_hint("the daemon needs CAP_BPF, CAP_NET_ADMIN and Linux 5.10 or newer; `redirector doctor` tries it"),
                _ => error(&source),
            })?;
            Ok((fd, for_sockets, anchor, instance))
        })
        .await?;
        let inside = Arc::new(Itself {
            bypass: Arc::clone(&instance.bypass),
            ports: SourcePorts::outside(survey.local_ports),
        });
        let dialer = Dialer {
            factory: SocketFactory::new(self.limits.stock()),
            inside: Arc::clone(&inside),
            selves: Arc::clone(&self.selves),
            own: self.own_cookie,
            outgoing: Arc::clone(&self.outgoing),
        };
        // `self` would be another namespace for everyone who reads it.
        let known_as = if *target == Target::Caller { Target::Cookie(cookie.0) } else { target.clone() };
        let netns = Namespace::new(Parts {
            target: known_as,
            cookie,
            file,
            container,
            host,
            limits: Arc::clone(&self.limits),
            instance,
            dialer,
            table: Arc::clone(&rules),
            anchor,
            foreign_programs,
            went_down: self.went_down.clone(),
        });
        self.all.add(&netns);
        make_sockets(&netns, for_sockets, rules.needs()).await?;
        netns.settle_sockets();
        Ok(Ready { netns, fd, inside })
    }

    /// Starts to steer. Where that fails the namespace is aborted.
    pub(in crate::supervisor) async fn start_steering(
        &self,
        target: &Target,
        ready: &Ready,
    ) -> Result<(), Error> {
        let Ready { netns, fd, inside } = ready;
        // Before the link: a namespace that dies from here on is noticed, and what we dial there passes.
        self.watch.add(netns.file);
        self.selves.insert(netns.cookie, inside);
        if let Err(source) = netns.instance.attach(fd.as_fd()) {
            // Whether it is watched for another reason is found out where that is done for all.
            self.selves.remove(netns.cookie);
            netns.abort().await;
            return Err(failed("attach", target, &source));
        }
        Ok(())
    }
}

/// Puts listeners into a consumer's slots. No rule names them yet; dropping the sockets empties the slots.
pub(super) fn fill_consumer(
    instance: &Instance,
    consumer: u32,
    listeners: &Bound,
    target: &Target,
) -> Result<(), Error> {
    listeners.iter().try_for_each(|(family, socket)| {
        let filled = instance.set_listener(slot(consumer, PROTOCOL_TCP, family.bit()), socket.as_fd());
        filled.map_err(|source| failed("attach", target, &source))
    })
}
