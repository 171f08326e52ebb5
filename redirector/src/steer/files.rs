//! What this process's limit of open files is used for: connections, namespaces, and all else.

/// How many files there can be at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Files(u64);

/// A connection's two sockets.
const OF_CONNECTION: u64 = 2;

/// The part of all files that is never for connections: one in so many.
const NOT_FOR_CONNECTIONS: u64 = 4;

/// The part of all files that is neither for connections nor for namespaces ([`Files::OF_NAMESPACE`]), but for commands,
/// engines, name servers, sockets in stock: one in so many.
const FOR_ALL_ELSE: u64 = 8;

/// At least so many are for all else: the daemon's own, and what a command needs. With fewer, `list` and `detach` would fail
/// while many clients come.
const LEAST_FOR_ALL_ELSE: u64 = 22;

impl Files {
    /// As many as are asked for.
    #[cfg(test)]
    pub(crate) const UNLIMITED: Self = Self(u64::MAX);

    /// Listeners, anchor, program, maps, link, and what tells that the namespace has died.
    pub(crate) const OF_NAMESPACE: u64 = 10;

    /// The sockets that `drop` leads to, and what watches them.
    pub(crate) const OF_BLACK_HOLE: u64 = 6;

    pub(crate) fn new(limit: u64) -> Self {
        Self(limit)
    }

    fn for_all_else(self) -> u64 {
        (self.0 / FOR_ALL_ELSE).max(LEAST_FOR_ALL_ELSE)
    }

    /// How many connections there can be beside namespaces that take so many files; at least one. The first namespace is counted
    /// before it comes.
    pub(crate) fn places(self, of_namespaces: u64) -> u64 {
        let others = of_namespaces.max(Self::OF_NAMESPACE).saturating_add(self.for_all_else());
        (self.0.saturating_sub(others.max(self.0 / NOT_FOR_CONNECTIONS)) / OF_CONNECTION).max(1)
    }

    /// Whether they suffice for namespaces that take so many, for so many connections, and for what a command needs.
    pub(crate) fn suffice_for(self, of_namespaces: u64, connections: u64) -> bool {
        let of_connections = connections.saturating_mul(OF_CONNECTION);
        // A namespace can have some files more, by its rules and by who keeps it.
        let for_all_else = (self.for_all_else() / 2).max(LEAST_FOR_ALL_ELSE);
        of_namespaces.saturating_add(of_connections).saturating_add(for_all_else) <= self.0
    }

    /// Unused sockets that each of so many namespaces may keep, of each family: together half of what is for all else.
    pub(crate) fn stock(self, namespaces: u64) -> u64 {
        self.for_all_else() / 4 / namespaces.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many places there are beside so many namespaces of the common kind.
    fn places(files: u64, namespaces: u64) -> u64 {
        Files::new(files).places(namespaces * Files::OF_NAMESPACE)
    }

    #[test]
    fn a_quarter_of_the_files_is_not_for_connections_and_32_at_least() {
        for (files, connections) in [(0, 1), (32, 1), (64, 16), (128, 48), (1024, 384), (20_000, 7_500)] {
            assert_eq!(places(files, 0), connections, "{files}");
            assert_eq!(places(files, 1), connections, "{files}: the first is counted");
        }
        assert_eq!(places(u64::MAX, 0), (u64::MAX - u64::MAX / 4) / 2);
    }

    #[test]
    fn namespaces_that_take_more_than_an_eighth_of_the_files_take_places() {
        for (files, namespaces, connections) in [
            (64, 2, 11),
            (64, 4, 1),
            (64, 1000, 1),
            (1024, 12, 384),
            (1024, 13, 383),
            (1024, 50, 198),
            (1024, 89, 3),
            (20_000, 250, 7_500),
            (20_000, 251, 7_495),
            (20_000, 1000, 3_750),
            (20_000, 1750, 1),
        ] {
            assert_eq!(places(files, namespaces), connections, "{files} files, {namespaces} namespaces");
        }
    }

    #[test]
    fn whatever_is_full_an_eighth_of_the_files_is_left() {
        for files in [64, 128, 400, 1024, 20_000, 524_288] {
            let others = Files::new(files).for_all_else();
            for namespaces in 0..=(files - others) / Files::OF_NAMESPACE {
                let taken = namespaces * Files::OF_NAMESPACE + places(files, namespaces) * OF_CONNECTION;
                // The one connection that there always is may be too many.
                assert!(
                    taken + others <= files + OF_CONNECTION,
                    "{files} files, {namespaces} namespaces: {taken}"
                );
            }
        }
    }

    #[test]
    fn a_namespace_and_its_connections_leave_files_for_a_command() {
        for (files, namespaces, connections, suffice) in [
            (64, 1, 16, true),
            (64, 2, 11, true),
            (64, 2, 12, false),
            (64, 4, 1, true),
            (64, 5, 0, false),
            (20_000, 1000, 4_375, true),
            (20_000, 1000, 4_376, false),
        ] {
            let of_namespaces = namespaces * Files::OF_NAMESPACE;
            let suffices = Files::new(files).suffice_for(of_namespaces, connections);
            assert_eq!(
                suffices, suffice,
                "{files} files, {namespaces} namespaces, {connections} connections"
            );
        }
        assert!(Files::UNLIMITED.suffice_for(u64::MAX / 2, u64::MAX / 16));
    }

    #[test]
    fn the_more_namespaces_the_smaller_the_stock_of_each() {
        for (files, namespaces, stock) in [(64, 1, 5), (1024, 1, 32), (20_000, 20, 31), (20_000, 1000, 0)] {
            assert_eq!(Files::new(files).stock(namespaces), stock, "{files} files, {namespaces} namespaces");
        }
    }
}
