//! What cannot be is left out, where it may be.

use super::check_all;

#[test]
fn a_container_that_was_found_has_its_rules_and_is_refused_alone() {
    check_all(&[
        ["", "found docker:web=1@7 a 80", "", "+7/a | 7: a 80 #0+ | 7 a 80 found docker:web=1"],
        ["7 a 80 found docker:web=1", "found docker:web=1@7 a 80", "", "=1 |  | 7 a 80 found docker:web=1"],
        ["7 a 80 found docker:web=1", "", "", "-7/a | 7: nothing | "],
        ["- a 80 found docker:web=1", "", "", "-wait/a |  | "],
        ["", "found docker:web=1@- a 80", "", "+wait/a |  | - a 80 found docker:web=1"],
        // What the file says of it itself goes before.
        [
            "",
            "docker:web=1@7 a 80; found docker:web=1@7 a 81, b 82",
            "",
            "+7/a +7/b | 7: a 80 #0+, b 82 #1+ | 7 a 80 file docker:web=1; 7 b 82 found docker:web=1",
        ],
        [
            "",
            "netns:n@7 a 80; found docker:web=1@7 a 80",
            "",
            "+7/a +wait/a | 7: a 80 #0+ | 7 a 80 file; - a 80 found docker:web=1",
        ],
        [
            "",
            "netns:n@7 a 80; found docker:web=1@7 a 81",
            "",
            "+7/a +wait/a | 7: a 80 #0+ | 7 a 80 file; - a 81 found docker:web=1",
        ],
        [
            "",
            "docker:side=2@7 a 80; found docker:web=1@7 a 80",
            "",
            "+7/a | 7: a 80 #0+ | 7 a 80 file docker:side=2; 7 a 80 found docker:web=1",
        ],
        // What it cannot have it waits for.
        ["7 a 81 api", "found docker:web=1@7 a 80", "", "+wait/a |  | 7 a 81 api; - a 80 found docker:web=1"],
        [
            "7 a 81 api",
            "found docker:web=1@7 a 80, b 82",
            "",
            "+7/b +wait/a | 7: a 81 #0, b 82 #1+ | 7 a 81 api; - a 80 found docker:web=1; 7 b 82 found docker:web=1",
        ],
        [
            "",
            "netns:n@8 b 81; found docker:web=1@7 a 80>original",
            "lo-is-down=7",
            "+8/b +wait/a | 8: b 81 #0+ | 8 b 81 file; - a 80>original found docker:web=1",
        ],
        [
            "",
            "netns:n@8 b 81; found docker:web=1@! a 80",
            "",
            "+8/b +wait/a | 8: b 81 #0+ | 8 b 81 file; - a 80 found docker:web=1",
        ],
        // Not even that where somebody has one that follows it.
        ["- a 81 api docker:web=1", "found docker:web=1@7 a 80", "", " |  | - a 81 api docker:web=1"],
        [
            "- a 81 api docker:web=1",
            "netns:n@8 b 81; found docker:web=1@7 a 80, c 82",
            "",
            "+8/b +7/c | 7: c 82 #0+; 8: b 81 #0+ | 8 b 81 file; - a 81 api docker:web=1; 7 c 82 found docker:web=1",
        ],
        [
            "- a 81 api docker:web=1",
            "found docker:web=1@7 a 80",
            "prune",
            "+7/a | 7: a 80 #0+ | 7 a 80 found docker:web=1",
        ],
        // What is in force stays until what is wanted can be.
        [
            "7 a 80 found docker:web=1",
            "found docker:web=1@7 a 80>original",
            "lo-is-down=7",
            "~wait/a |  | 7 a 80>original found docker:web=1",
        ],
        [
            "7 a 80 found docker:web=1",
            "found docker:web=1@7 a 80",
            "deaf",
            "=1 |  | 7 a 80 found docker:web=1",
        ],
        [
            "- a 80 found docker:web=1",
            "found docker:web=1@7 a 80",
            "deaf",
            "=1 |  | - a 80 found docker:web=1",
        ],
        ["", "found docker:web=1@7 a 80", "deaf", "+wait/a |  | - a 80 found docker:web=1"],
        // What is wrong with the file is not left out with it.
        ["7 a 81 api", "netns:n@7 a 80; found docker:web=1@! a 80", "", "refused 0.0 OfAttach!"],
        // It has been started again since its destination was looked up.
        ["", "found docker:web=1@7 a 80", "unknown", "+wait/a |  | - a 80 found docker:web=1"],
        ["", "netns:n@7 a 80", "unknown", "outdated"],
        ["7 a 80 file", "netns:n@7 a 80", "unknown", "=1 |  | 7 a 80 file"],
    ]);
}

#[test]
fn what_cannot_be_made_is_set_aside_where_that_is_asked_for() {
    check_all(&[
        ["", "netns:n@! a 80; netns:m@8 b 81", "", "refused 0.* Gone"],
        ["", "netns:n@! a 80; netns:m@8 b 81", "lenient", "+8/b | 8: b 81 #0+ | 8 b 81 file | aside 0"],
        ["", "netns:n@!! a 80; netns:m@8 b 81", "lenient", "refused 0.* Gone!"],
        ["7 a 81 api", "netns:n@7 a 80", "lenient", "refused 0.0 OfAttach!"],
        ["", "netns:n@7 a 80>original", "lo-is-down=7", "refused 0.0 LoopbackDown"],
        ["", "netns:n@7 a 80", "other-redirector=7", "refused 0.0 OtherRedirector"],
        // What is there stays.
        [
            "7 a 80 file",
            "netns:n@7 a 80>original; netns:m@8 b 81",
            "lenient lo-is-down=7",
            "+8/b | 8: b 81 #0+ | 7 a 80 file; 8 b 81 file | aside 0",
        ],
        ["7 a 80 file", "netns:n7@! a 81", "lenient", " |  | 7 a 80 file | aside 0"],
        ["7 a 80 file", "netns:other@! a 81", "lenient", "-7/a | 7: nothing |  | aside 0"],
        [
            "- a 80 file docker:web=1",
            "docker:web=1@! a 81",
            "lenient",
            " |  | - a 80 file docker:web=1 | aside 0",
        ],
        ["- a 80 api docker:web=1", "docker:web=1@! a 81", "lenient prune", "-wait/a |  |  | aside 0"],
        // With all that mean the same namespace.
        [
            "7 x 1 file",
            "netns:n@7 a 80>original; netns:m@7 b 81",
            "lenient lo-is-down=7",
            " |  | 7 x 1 file | aside 0,1",
        ],
    ]);
}

#[test]
fn another_try_changes_only_what_was_set_aside() {
    check_all(&[
        [
            "7 a 80 file; 8 x 1 file",
            "netns:m@9 b 81",
            "again=-",
            "+9/b | 9: b 81 #0+ | 7 a 80 file; 8 x 1 file; 9 b 81 file",
        ],
        [
            "- x 1 file docker:web=1",
            "netns:m@9 b 81",
            "again=-",
            "+9/b | 9: b 81 #0+ | 9 b 81 file; - x 1 file docker:web=1",
        ],
        ["7 a 80 file; 7 b 81 file", "netns:n@7 a 80", "again=7", "-7/b =1 | 7: a 80 #0 | 7 a 80 file"],
        // Elsewhere than before: what is there is not to be replaced.
        ["7 a 80 file; 7 b 81 file", "netns:n@7 a 80", "again=8", "=1 |  | 7 a 80 file; 7 b 81 file"],
        [
            "7 b 81 file",
            "netns:n@7 a 80",
            "again=-",
            "+7/a | 7: a 80 #1+, b 81 #0 | 7 a 80 file; 7 b 81 file",
        ],
        // But what it has for a container goes from where that was.
        [
            "3 a 80 file docker:web=1; 3 b 81 file",
            "docker:web=2@7 a 80",
            "again=-",
            "+7/a -3/a | 3: b 81 #1; 7: a 80 #0+ | 3 b 81 file; 7 a 80 file docker:web=2",
        ],
        [
            "3 a 80 file docker:web=1",
            "docker:web=2@7 a 80; netns:n@3 b 81",
            "again=-,-",
            "+7/a +3/b -3/a | 3: b 81 #1+; 7: a 80 #0+ | 3 b 81 file; 7 a 80 file docker:web=2",
        ],
        // Whatever is wrong with it, it is tried again.
        ["7 a 81 api", "netns:n@7 a 80", "again=7", " |  | 7 a 81 api | aside 0"],
        ["", "netns:n@! a 80; netns:m@9 b 81", "again=7,-", "+9/b | 9: b 81 #0+ | 9 b 81 file | aside 0"],
        ["", "netns:n@!! a 80", "again=-", " |  |  | aside 0"],
    ]);
}
