//! What `drop` leads to: two listeners inside the namespace, of which no client ever hears.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use redirector_ebpf::{CONSUMER_BLACK_HOLE, slot};

use super::{attach::bind_both, failed, namespace::Namespace};
use crate::{
    config::Target,
    control::Error,
    kernel::Instance,
    listener,
    netns::{Family, NetnsCookie},
    sys,
};

/// The listeners of one namespace. They are there while a rule needs them.
#[derive(Debug)]
pub(super) struct BlackHole(Vec<(Family, socket2::Socket)>);

impl BlackHole {
    /// Makes them in a namespace, and puts them into their slots. Blocks.
    pub(super) fn make(
        fd: &OwnedFd,
        cookie: NetnsCookie,
        target: &Target,
        instance: &Instance,
    ) -> Result<Self, Error> {
        let listeners = bind_both(fd, cookie, target)?;
        for (family, listener) in &listeners {
            let error = |source| failed("attach", target, &source);
            listener::mute(listener).map_err(error)?;
            let slot = slot(CONSUMER_BLACK_HOLE, family.bit());
            instance.set_listener(slot, listener.as_fd()).map_err(error)?;
        }
        Ok(Self(listeners))
    }

    /// Puts back what was killed from inside, or pushed out of its slot. How many listeners were put back, and how many slots.
    pub(super) fn mend(&self, netns: &Namespace) -> io::Result<(u64, u64)> {
        let (mut revived, mut restored) = (0, 0);
        for (family, listener) in &self.0 {
            let slot = slot(CONSUMER_BLACK_HOLE, family.bit());
            if !sys::socket::is_listening(listener)? {
                sys::socket::listen(listener, 1)?;
                revived += 1;
            } else if netns.instance.listener_cookie(slot).map_err(io::Error::other)?
                == Some(listener.cookie()?)
            {
                continue;
            } else {
                restored += 1;
            }
            netns.instance.set_listener(slot, listener.as_fd()).map_err(io::Error::other)?;
        }
        Ok((revived, restored))
    }
}
