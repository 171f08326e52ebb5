//! Files of a module that use each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    names::{Meaning, Names},
    source::crate_files,
};

/// Which file uses which other file of its module, and by what paths.
type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// What uses what inside of each module of the crate: across modules there is their order.
fn uses(names: &Names) -> Uses {
    let mut uses = Uses::new();
    for (path, module) in &names.modules {
        for used in &module.uses {
            let Some(Meaning::Item(home)) = names.resolve(path, used) else { continue };
            let of = &names.modules[&home].file;
            if home.first() == path.first() && *of != module.file {
                let of = uses.entry(module.file.clone()).or_default().entry(of.clone()).or_default();
                of.insert(used.join("::"));
            }
        }
    }
    uses
}

/// The files that a file leads to, at any distance.
fn reach(uses: &Uses, file: &Path) -> BTreeSet<PathBuf> {
    let mut reached = BTreeSet::new();
    let mut next = vec![file];
    while let Some(file) = next.pop() {
        for of in uses.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(of.clone()) {
                next.push(of);
            }
        }
    }
    reached
}

/// Each set of files of which every one leads to all others.
fn circles(uses: &Uses) -> BTreeSet<BTreeSet<PathBuf>> {
    let reached: BTreeMap<_, _> = uses.keys().map(|file| (file, reach(uses, file))).collect();
    let in_circles = reached.iter().filter(|(file, reached)| reached.contains(**file));
    let circle = |file: &PathBuf, reached: &BTreeSet<PathBuf>| {
        reached.iter().filter(|of| reach(uses, of).contains(file)).cloned().collect()
    };
    in_circles.map(|(file, reached)| circle(file, reached)).collect()
}

/// A circle and the uses that make it.
fn describe(uses: &Uses, circle: &BTreeSet<PathBuf>) -> String {
    let mut text = format!("{} files in a circle:\n", circle.len());
    for file in circle {
        for (of, paths) in uses[file].iter().filter(|(of, _)| circle.contains(*of)) {
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            writeln!(text, "  {} uses {}: {}", file.display(), of.display(), paths.join(", "))
                .expect("a text");
        }
    }
    text
}

#[test]
fn no_files_of_a_module_use_each_other_in_a_circle() {
    let names = Names::of(&crate_files());
    assert_eq!(names.unknown(), Vec::<String>::new());
    let uses = uses(&names);
    let count: usize = uses.values().map(BTreeMap::len).sum();
    assert!(count > 200, "only {count} uses were found");
    let circles: Vec<_> = circles(&uses).iter().map(|circle| describe(&uses, circle)).collect();
    assert!(circles.is_empty(), "\n{}", circles.concat());
}

/// The circles of a crate that is written as files' names and their texts, each as one line.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    let circles = circles(&uses(&Names::of(&files)));
    let line = |circle: &BTreeSet<PathBuf>| {
        circle.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    circles.iter().map(line).collect()
}

/// What it shows, a crate as files' names and their texts, its circles.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn circles_are_found_however_the_uses_are_written() {
    const LIB: (&str, &str) = ("lib.rs", "mod a; mod other;");
    const OTHER: (&str, &str) = ("other.rs", "use crate::a::B; pub struct Other;");
    let cases: &[Case] = &[
        (
            "by `super::`",
            &[
                ("a/mod.rs", "mod b; mod c;"),
                ("a/b.rs", "use super::c::C; pub struct B;"),
                ("a/c.rs", "use super::b::B; pub struct C;"),
            ],
            &["a/b.rs a/c.rs"],
        ),
        (
            "by paths in code, types, macros and attributes, three files long",
            &[
                ("a/mod.rs", "mod b; mod c; mod d;"),
                ("a/b.rs", "pub fn b() { assert!(true, \"{}\", super::c::c(1).len()); }"),
                ("a/c.rs", "pub fn c(_: u8) -> super::d::D { todo() }"),
                ("a/d.rs", "#[serde(skip_serializing_if = \"super::b::b\")] pub struct D;"),
            ],
            &["a/b.rs a/c.rs a/d.rs"],
        ),
        (
            "by a re-export, of a re-export, under another name",
            &[
                ("a/mod.rs", "mod b; mod c; pub use b::Again;"),
                ("a/b/mod.rs", "mod d; pub(super) use self::d::D as Again; use super::c::C; struct B(C);"),
                ("a/b/d.rs", "use crate::a::c; pub struct D(c::C);"),
                ("a/c.rs", "use super::Again; pub struct C(Again);"),
            ],
            &["a/b/d.rs a/c.rs"],
        ),
        (
            "by `crate::` and the name of the module",
            &[
                ("a.rs", "mod b; mod c;"),
                ("a/b.rs", "pub enum B { One } fn b() { crate::a::c::c(); }"),
                ("a/c.rs", "use crate::a::b::B::One; pub fn c() { One; }"),
            ],
            &["a/b.rs a/c.rs"],
        ),
        (
            "of a module and its child, by the child's name and by what it re-exports",
            &[
                ("a/mod.rs", "mod b; mod c; pub use b::B; pub struct A; fn a(_: B) { c::c() }"),
                ("a/b.rs", "pub struct B(super::A);"),
                ("a/c.rs", "pub fn c() { self::d::D; } mod d { pub struct D(super::super::A); }"),
            ],
            &["a/b.rs a/c.rs a/mod.rs"],
        ),
        (
            "by what a macro defines",
            &[
                ("a/mod.rs", "mod b; mod c;"),
                (
                    "a/b.rs",
                    "reasons! { #[doc = \"Why.\"] Why { No = \"no\", } } fn b() { super::c::c(Why::No) }",
                ),
                ("a/c.rs", "use super::b::Why; pub fn c(_: Why) {}"),
            ],
            &["a/b.rs a/c.rs"],
        ),
        (
            "two of them",
            &[
                ("a/mod.rs", "mod b; mod c; mod d; mod e;"),
                ("a/b.rs", "use super::c::C; pub struct B;"),
                ("a/c.rs", "use super::{b::B, d::D}; pub struct C;"),
                ("a/d.rs", "use super::e::E; pub struct D;"),
                ("a/e.rs", "pub struct E; impl E { fn e() -> Vec<super::d::D> { todo() } }"),
            ],
            &["a/b.rs a/c.rs", "a/d.rs a/e.rs"],
        ),
        (
            "a re-export alone is no use",
            &[
                ("a/mod.rs", "mod b; pub use b::B; pub(crate) use self::b::More; pub struct A;"),
                ("a/b.rs", "use super::A; pub struct B(A); pub struct More;"),
            ],
            &[],
        ),
        (
            "nor is a module's name, or where a thing can be seen",
            &[
                ("a/mod.rs", "mod b; mod c; pub(super) struct A;"),
                ("a/b.rs", "use super::c; pub(super) struct B; pub(in super::super) fn b(_: c::C) {}"),
                ("a/c.rs", "use super::b; pub struct C(super::A);"),
            ],
            &[],
        ),
        (
            "what a module has from a file is that file's",
            &[
                ("a/mod.rs", "mod b; mod c; use c::C; pub struct A(C);"),
                ("a/b.rs", "use super::A; pub struct B(A);"),
                ("a/c.rs", "pub struct C;"),
            ],
            &[],
        ),
        (
            "a function and the file of its name are two things",
            &[
                ("a/mod.rs", "mod b; mod c; pub use b::b; fn a() { b(c::C) }"),
                ("a/b.rs", "use super::c; pub fn b(_: c::C) {}"),
                ("a/c.rs", "pub struct C; pub fn c(b: u8) { dbg!(b, b.b); b; }"),
            ],
            &[],
        ),
        (
            "a variable is not the function of its name",
            &[
                ("a/mod.rs", "mod b; pub use b::b; pub struct A; fn a(b: u8) { b + 1; }"),
                ("a/b.rs", "pub fn b(_: super::A) {}"),
            ],
            &[],
        ),
        (
            "a call is one of the function",
            &[
                ("a/mod.rs", "mod b; pub use b::b; pub struct A; fn a() { let b = b(A); }"),
                ("a/b.rs", "pub fn b(_: super::A) {}"),
            ],
            &["a/b.rs a/mod.rs"],
        ),
        (
            "tests may use what they want",
            &[
                ("a/mod.rs", "mod b; mod c; #[cfg(test)] mod tests;"),
                (
                    "a/b.rs",
                    "#[cfg(test)] use super::c::C; pub struct B; #[cfg(test)] mod tests { use crate::a::c::C; }",
                ),
                (
                    "a/c.rs",
                    "use super::b::B; pub struct C(B); impl B { #[cfg(test)] fn b() -> super::b::No {} }",
                ),
            ],
            &[],
        ),
        (
            "other modules have their order",
            &[("a/mod.rs", "mod b; pub use b::B;"), ("a/b.rs", "use crate::other::Other; pub struct B;")],
            &[],
        ),
        (
            "names that lead to each other have no meaning",
            &[
                ("a/mod.rs", "mod b; mod c;"),
                ("a/b.rs", "pub use super::c::It; pub struct B(It);"),
                ("a/c.rs", "pub use super::b::It; pub struct C(It);"),
            ],
            &[],
        ),
    ];
    for (name, files, expected) in cases {
        let files = [&[LIB, OTHER], *files].concat();
        assert_eq!(circles_of(&files), **expected, "{name}");
    }
}
