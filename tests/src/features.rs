//! Which kernel has what: a table, and what it is for.
//!
//! A test that needs a feature says so with [`needs!`](crate::needs). Where the table denies it, the test asserts
//! what happens instead ([`Feature::is_here`]), or it is listed in `NOT_APPLICABLE`; then it ends at once and a line
//! says so, which `cargo xtask test --vm` counts. There is no other way to skip: a feature that the table grants is
//! never found missing by a test, it makes the test fail. `it/features.rs` compares the table with the kernel.

use std::{
    fs,
    io::{self, Write as _},
};

/// What some of the kernels that the tests run on have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `BPF_PROG_TEST_RUN` of `sk_lookup` programs.
    TestRun,
    /// The socket option `SO_NETNS_COOKIE`.
    NetnsCookie,
    /// `ingress_ifindex` in the context of `sk_lookup` programs.
    IngressIfindex,
    /// The socket option `IP_LOCAL_PORT_RANGE`.
    LocalPortRange,
    /// The socket option `SO_PEERPIDFD`.
    PeerPidfd,
    /// `PIDFD_THREAD`: a pidfd of any thread.
    ThreadPidfd,
}

/// Since when there is a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The first version of Linux with it.
    pub version: Version,
    /// Older long-term series that have got it since, as Debian packages them. Their first releases lack it.
    pub backported: &'static [Version],
}

/// All of them, in the order of versions.
pub const TABLE: [(Feature, Since); 6] = [
    // https://github.com/torvalds/linux/commit/7c32e8f8bc33
    (Feature::TestRun, Since { version: Version(5, 13), backported: &[Version(5, 10)] }),
    // https://github.com/torvalds/linux/commit/e8b9eab99232
    (Feature::NetnsCookie, Since { version: Version(5, 14), backported: &[] }),
    // https://github.com/torvalds/linux/commit/f89315650ba3
    (Feature::IngressIfindex, Since { version: Version(5, 17), backported: &[] }),
    // https://github.com/torvalds/linux/commit/91d0b78c5177
    (Feature::LocalPortRange, Since { version: Version(6, 3), backported: &[Version(6, 1)] }),
    // https://github.com/torvalds/linux/commit/7b26952a91cf
    (Feature::PeerPidfd, Since { version: Version(6, 5), backported: &[] }),
    // https://github.com/torvalds/linux/commit/64bef697d33b
    (Feature::ThreadPidfd, Since { version: Version(6, 9), backported: &[] }),
];

/// Tests, by how their path begins, of which nothing is left to be seen without a feature.
const NOT_APPLICABLE: [(&str, Feature); 1] = [("model::", Feature::TestRun)];

/// A version of Linux, as far as features are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// That of the running kernel.
    #[must_use]
    pub fn running() -> Self {
        let path = "/proc/sys/kernel/osrelease";
        let release = fs::read_to_string(path).unwrap_or_else(|error| panic!("read `{path}`: {error}"));
        Self::of(&release).unwrap_or_else(|| panic!("a release of Linux: {release}"))
    }

    /// The first two numbers of a release, `6.18.15+deb13-cloud-amd64`.
    #[must_use]
    pub fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl Feature {
    /// Since when there is one.
    #[must_use]
    pub fn since(self) -> Since {
        let row = TABLE.iter().find(|(feature, _)| *feature == self);
        row.unwrap_or_else(|| panic!("{self:?} is not in the table")).1
    }

    /// Whether the table says that the running kernel has it.
    #[must_use]
    pub fn is_here(self) -> bool {
        self.since().is_in(Version::running())
    }
}

impl Since {
    /// Whether a kernel of this version has it.
    #[must_use]
    pub fn is_in(self, running: Version) -> bool {
        running >= self.version || self.backported.contains(&running)
    }
}

/// Whether a test that needs a feature can show anything here, and a line that says so if not.
///
/// # Panics
///
/// When the table denies the feature, and the test is not listed as one that is nothing without it: then it has to
/// assert what happens instead.
#[must_use]
pub fn applies(feature: Feature, test: &str) -> bool {
    // As the harness names it: without the crate, and without the closure that gave the name.
    let test = test.split_once("::").map_or(test, |(_, path)| path);
    let test = test.trim_end_matches("::{{closure}}");
    let applies = applies_on(Version::running(), feature, test);
    if !applies {
        // Past the harness, which keeps to itself what a test prints that passes.
        writeln!(io::stdout(), "skipped by table: {test}: needs {feature:?}").expect("write to stdout");
    }
    applies
}

/// See [`applies`], for any kernel and without a line.
#[must_use]
pub fn applies_on(running: Version, feature: Feature, test: &str) -> bool {
    let since = feature.since();
    if since.is_in(running) {
        return true;
    }
    let listed = NOT_APPLICABLE.iter().any(|(path, needed)| test.starts_with(path) && *needed == feature);
    assert!(listed, "{test} needs {feature:?} ({since:?}): assert what happens without it, or list the test");
    false
}

/// Ends a test that is listed in [`features`](crate::features) as one that shows nothing without a feature, where the
/// table denies it.
#[macro_export]
macro_rules! needs {
    ($feature:ident) => {
        if !$crate::features::applies(
            $crate::features::Feature::$feature,
            ::std::any::type_name_of_val(&|| {}),
        ) {
            return;
        }
    };
}
