//! Addresses and prefixes that are written otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// The address or prefix that a text may mean, as it is written: without host bits, of one family.
pub(super) fn address(text: &str) -> Option<String> {
    // `[fd00::]/8` as well as `[fd00::/8]`.
    let text = text.replace(['[', ']'], "");
    let net = match text.split_once('/') {
        None => text.parse::<IpAddr>().ok().map(IpNet::from).or_else(|| abbreviated(&text, None))?,
        Some((address, length)) => {
            let length = length.parse::<u8>().ok().or_else(|| mask(length))?;
            match address.parse::<IpAddr>() {
                Ok(address) => IpNet::new(address, length).ok()?,
                Err(_) => abbreviated(address, Some(length))?,
            }
        }
    };
    Some(shown(unmapped(net).trunc()))
}

/// `10.0.0.*` and `10.0.*.*`; `10/8` and `192.168/16`.
fn abbreviated(text: &str, length: Option<u8>) -> Option<IpNet> {
    let octets: Vec<_> = text.split('.').filter(|octet| !matches!(*octet, "*" | "x")).collect();
    let stars = text.split('.').count() - octets.len();
    let length = match length {
        Some(length) => length,
        None if stars > 0 => u8::try_from(octets.len() * 8).ok()?,
        None => return None,
    };
    if octets.is_empty() || octets.len() > 4 {
        return None;
    }
    let mut whole = [0; 4];
    for (at, octet) in octets.iter().enumerate() {
        whole[at] = octet.parse().ok()?;
    }
    Some(Ipv4Net::new(whole.into(), length).ok()?.into())
}

/// `255.0.0.0` as 8.
fn mask(text: &str) -> Option<u8> {
    ipnet::ipv4_mask_to_prefix(text.parse::<Ipv4Addr>().ok()?).ok()
}

/// An IPv4-mapped address is an IPv4 address; of a prefix that is shorter than what all of them have in common, all.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped();
    v4.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len().saturating_sub(96)).ok()).map_or(net, IpNet::V4)
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What stands before the last colon and after it, where before it is an IPv6 address without brackets.
pub(super) fn unbracketed(text: &str) -> Option<(&str, &str)> {
    let (address, port) = text.rsplit_once(':')?;
    let prefix = address.split('/').next()?;
    prefix.parse::<Ipv6Addr>().is_ok().then_some((address, port))
}
