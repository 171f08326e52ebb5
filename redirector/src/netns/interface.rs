//! The interfaces of a namespace. Called inside it, see [`super::enter()`].

use std::{collections::BTreeSet, io, ops::ControlFlow};

use netlink_packet_core::NLM_F_REQUEST;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    net::if_::{if_indextoname, if_nameindex, if_nametoindex},
};

use super::netlink;
use crate::sys::inject::point;

/// The number of an interface, in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceIndex(pub u32);

impl InterfaceIndex {
    /// The loopback device's in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
    pub(super) const LOOPBACK: Self = Self(1);

    /// Whether that interface of the namespace of this thread is up. It alone is asked for.
    ///
    /// # Errors
    ///
    /// As rtnetlink(7) `RTM_GETLINK`: `ENODEV` where there is no such interface.
    pub(super) fn is_up(self) -> io::Result<bool> {
        let mut link = LinkMessage::default();
        link.header.index = self.0;
        let socket = Socket::new(NETLINK_ROUTE)?;
        point("sendto NETLINK_ROUTE")?;
        netlink::send(&socket, RouteNetlinkMessage::GetLink(link), NLM_F_REQUEST)?;
        let mut is_up = false;
        netlink::answers(&socket, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                is_up = link.header.flags.contains(LinkFlags::Up);
            }
            ControlFlow::Break(())
        })?;
        Ok(is_up)
    }
}

/// All interfaces of the namespace of this thread, by name.
///
/// # Errors
///
/// As if_nameindex(3).
pub fn interfaces() -> io::Result<Vec<(String, InterfaceIndex)>> {
    let found = if_nameindex()?;
    let named =
        found.iter().map(|one| (one.name().to_string_lossy().into_owned(), InterfaceIndex(one.index())));
    Ok(named.collect())
}

/// Those interfaces of the namespace of this thread that have one of these names: however many there are, only these are asked
/// for.
///
/// # Errors
///
/// As if_nametoindex(3) and if_indextoname(3), but for names that no interface has.
pub fn interfaces_named<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> io::Result<Vec<(String, InterfaceIndex)>> {
    let names: BTreeSet<_> = names.into_iter().collect();
    let mut found = Vec::new();
    for name in names {
        let index = match if_nametoindex(name) {
            Err(Errno::ENODEV) => continue,
            index => index?,
        };
        // The kernel takes alternative names too, which no rule means.
        match if_indextoname(index) {
            Ok(own) if own.to_bytes() == name.as_bytes() => {
                found.push((name.to_owned(), InterfaceIndex(index)));
            }
            Ok(_) | Err(Errno::ENXIO) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_asked_for_are_found_once_each() {
        let lo = ("lo".to_owned(), InterfaceIndex(1));
        for (names, found) in [
            (&[][..], &[][..]),
            (&["lo"], &[&lo]),
            (&["none0", "lo", "lo", "none1"], &[&lo]),
            (&["", "a-name-that-is-too-long-for-one", "lo0"], &[]),
        ] {
            let asked = interfaces_named(names.iter().copied()).unwrap();
            assert_eq!(asked.iter().collect::<Vec<_>>(), found, "{names:?}");
        }
    }

    #[test]
    fn an_interface_is_up_or_not_or_not_there() {
        let flags = std::fs::read_to_string("/sys/class/net/lo/flags").unwrap();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
        assert_eq!(InterfaceIndex::LOOPBACK.is_up().unwrap(), flags & 1 != 0, "{flags:#x}");
        let absent = InterfaceIndex(u32::from(u16::MAX)).is_up().unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(nix::libc::ENODEV));
    }

    #[test]
    fn the_loopback_device_is_among_them() {
        let found = interfaces().unwrap();
        assert!(found.contains(&("lo".into(), InterfaceIndex(1))), "{found:?}");
    }
}
