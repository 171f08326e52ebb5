//! The table of kernel features, against the kernel and against itself.

use redirector_tests::{
    features::{Feature, TABLE, Version, applies_on},
    probe,
};

#[test]
fn the_table_of_features_is_what_this_kernel_has() {
    let running = Version::running();
    let wrong: Vec<_> = TABLE
        .iter()
        .map(|(feature, since)| (feature, since, probe::has(*feature)))
        .inspect(|(feature, since, has)| println!("{feature:?}, {since:?}: {has}"))
        .filter(|(_, since, has)| since.is_in(running) != *has)
        .collect();
    assert!(wrong.is_empty(), "{running:?} has it or has it not, against the table: {wrong:?}");
}

#[test]
fn a_version_is_the_first_two_numbers_of_a_release() {
    assert_eq!(Version::of("6.18.15+deb13-cloud-amd64"), Some(Version(6, 18)));
    assert_eq!(Version::of("5.10.0-46-cloud-amd64"), Some(Version(5, 10)));
    assert_eq!(Version::of("linux"), None);
    assert!(Version(5, 10) < Version(5, 14) && Version(5, 14) < Version(6, 1));
}

#[test]
fn a_test_runs_where_the_table_grants_what_it_needs_and_only_there() {
    for (version, applies) in [((5, 10), true), ((5, 12), false), ((5, 13), true), ((7, 0), true)] {
        let version = Version(version.0, version.1);
        assert_eq!(applies_on(version, Feature::TestRun, "model::a_test"), applies, "{version:?}");
    }
    assert!(applies_on(Version(5, 14), Feature::NetnsCookie, "rules::a_test"));
}

#[test]
#[should_panic(expected = "assert what happens without it, or list the test")]
fn a_test_that_is_not_listed_cannot_be_skipped() {
    assert!(!applies_on(Version(5, 10), Feature::NetnsCookie, "rules::a_test"));
}
