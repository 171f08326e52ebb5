//! Which namespaces a file means, and which of them stay as they are.

use super::*;
use crate::{
    intent::testing::check,
    reconcile::apply::testing::{File, problems},
};

/// Each line: the file, options, what is wrong with it, and where it leads: the entries of each namespace, what waits, the namespaces
/// that are set aside, what leads nowhere; what is left out of the file; the targets that stay.
#[test]
fn entries_lead_to_namespaces_and_what_is_set_aside_takes_along_all_that_mean_the_same() {
    let cases = [
        ["netns:n@7 a 80; netns:m@8 b 81", "", "", "7:0 8:1 |  |  |  |  | "],
        ["netns:n@7 a 80; netns:m@8 b 81; netns:k@7 c 82", "", "", "7:0+2 8:1 |  |  |  |  | "],
        ["docker:web=1@- a 80; netns:n@7 b 81", "", "", "7:1 | 0 |  |  |  | "],
        ["netns:n@! a 80; netns:m@8 b 81", "", "", "8:1 |  |  | 0 |  | "],
        ["netns:n@! a 80; netns:m@8 b 81", "lenient", "0.*", "8:1 |  |  |  | 0:gone | netns:n"],
        ["netns:n@7 a 80; netns:m@8 b 81", "lenient", "0.0", "8:1 |  | 7 |  | 0:gone | netns:n"],
        ["netns:n@7 a 80; netns:m@7 b 81", "lenient", "1.0", " |  | 7 |  | 0:gone 1:gone | netns:m netns:n"],
        ["docker:web=1@- a 80; netns:n@7 b 81", "lenient", "1.*", " | 0 | 7 |  | 1:gone | netns:n"],
        // A container that was found is not the file's, but stays with it.
        [
            "netns:n@7 a 80; found docker:web=1@7 b 81",
            "lenient",
            "0.0",
            " |  | 7 |  | 0:gone | docker:web netns:n",
        ],
        ["netns:n@7 a 80; found docker:web=1@7 b 81", "", "1.*", "7:0 | 1 |  |  |  | "],
        ["netns:n@7 a 80; found docker:web=1@7 b 81", "", "1.0", "7:0+1 |  |  |  |  | "],
        ["found docker:web=1@! a 80", "", "0.*", " | 0 |  |  |  | "],
        ["found docker:web=1@7 a 80", "deaf", "", " | 0 |  |  |  | "],
    ];
    check(&cases, |case| {
        let File { mut request, looked } = File::of(case[0], case[1]);
        if !case[2].is_empty() {
            request.set_aside(problems(case[2])).unwrap();
        }
        let places = Located::of(&looked, &request);
        let entries = |there: &There| {
            let entries: Vec<_> = there.entries.iter().map(|(entry, _)| entry.to_string()).collect();
            format!("{}:{}", there.found.cookie, entries.join("+"))
        };
        let there: Vec<_> = places.there.iter().map(entries).collect();
        let waits: Vec<_> = places.waits.iter().map(|one| one.entry.to_string()).collect();
        let aside: Vec<_> = places.aside.iter().map(|one| one.found.cookie.to_string()).collect();
        let refused: Vec<_> = places.refused.iter().map(|one| one.namespace.to_string()).collect();
        let left_out = places.left_out(&request);
        let left_out: Vec<_> = left_out.iter().map(|(entry, one)| format!("{entry}:{}", one.why())).collect();
        let mut staying: Vec<_> = places.staying(&request).iter().map(ToString::to_string).collect();
        staying.sort();
        [there, waits, aside, refused, left_out, staying].map(|words| words.join(" ")).join(" | ")
    });
}

#[test]
fn of_what_is_left_out_it_is_known_where_it_led() {
    let File { mut request, looked } = File::of("netns:n@7 a 80; netns:m@! b 81", "again=7,8");
    request.set_aside(problems("0.0 1.*")).unwrap();
    let set_aside = super::super::set_aside::SetAside::default();
    let left_out: Vec<_> = Located::of(&looked, &request).left_out(&request).into_values().collect();
    set_aside.replace(request.scope(), left_out);
    let (_, again) = set_aside.again();
    assert_eq!([again.at(0), again.at(1)], [Some(NetnsCookie(7)), Some(NetnsCookie(8))]);
}
