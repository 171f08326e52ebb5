//! The interfaces of a namespace. Called inside it, see [`super::enter()`].

use std::io;

use nix::net::if_::if_nameindex;

/// The number of an interface, in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceIndex(pub u32);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_among_them() {
        let found = interfaces().unwrap();
        assert!(found.contains(&("lo".into(), InterfaceIndex(1))), "{found:?}");
    }
}
