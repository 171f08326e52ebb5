//! An address or a prefix as text.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::ParseError;

/// An address or a prefix of one family, without host bits.
pub(super) fn prefix<A: FromStr + Into<IpAddr>>(text: &str, bits: u8) -> Result<IpNet, ParseError> {
    let bad = || {
        let family = if bits == 32 { "IPv4" } else { "IPv6" };
        ParseError(format!("`{}` is not an {family} address or prefix", text.escape_debug()))
    };
    let (address, length) = match text.split_once('/') {
        None => (text, bits),
        Some((address, length)) => {
            let digits = length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|length| digits && *length <= bits).ok_or_else(bad)?;
            (address, length)
        }
    };
    let address: IpAddr = address.parse::<A>().map_err(|_| bad())?.into();
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(ParseError(format!("`{text}` is IPv4, and is to be written so")));
    }
    let net = IpNet::new(address, length).map_err(|_| bad())?;
    if net.trunc() != net {
        return Err(ParseError(format!("`{text}` has host bits set")));
    }
    Ok(net)
}
