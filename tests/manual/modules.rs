//! The order of the modules of `redirector`: what ARCHITECTURE.md says against what the files use.

use std::{collections::BTreeSet, fs, path::Path};

use syn::{
    File, Item, ItemMod, ItemUse, Type, UseTree,
    visit::{self, Visit},
};

use crate::source::{crate_files, is_for_tests, item_is_for_tests, parse, root};

/// The first cells of the table under a heading, without their marks.
fn table_under<'a>(text: &'a str, heading: &str, mark: (&str, &str)) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let rows = lines.skip_while(|line| !line.contains(heading)).skip_while(|line| !line.starts_with('|'));
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    cells.filter_map(|cell| cell.trim().strip_prefix(mark.0)?.strip_suffix(mark.1)).collect()
}

/// The order as ARCHITECTURE.md has it.
fn order() -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("read ARCHITECTURE.md");
    let order = table_under(&text, "## Modules of `redirector`", ("`", "`"));
    assert!(order.len() > 10, "{order:?}");
    order.into_iter().map(str::to_owned).collect()
}

/// The modules of the crate that a file uses outside of its tests, and the modules that it has for tests only.
#[derive(Default)]
struct Uses {
    modules: BTreeSet<String>,
    for_tests: BTreeSet<String>,
}

impl Uses {
    fn of(source: &File) -> Self {
        let mut uses = Self::default();
        uses.visit_file(source);
        uses
    }

    /// What comes behind `crate::`.
    fn add(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.modules.extend([path.ident.to_string()]),
            UseTree::Name(name) => self.modules.extend([name.ident.to_string()]),
            UseTree::Rename(rename) => self.modules.extend([rename.ident.to_string()]),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(tree)),
            UseTree::Glob(_) => panic!("`use crate::*` hides what is used"),
        }
    }

    fn find(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) if path.ident == "crate" => self.add(&path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.find(tree)),
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if is_for_tests(&module.attrs) {
            self.for_tests.insert(module.ident.to_string());
        } else {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        // A module has its name written down.
        if matches!(item, Item::Mod(_)) || !item_is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        self.find(&import.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate") {
            self.modules.extend(segments.next().map(|module| module.ident.to_string()));
        }
        visit::visit_path(self, path);
    }
}

/// What all files of a module use. `file` is its only one, or its first.
fn used_by(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let Uses { mut modules, for_tests } = Uses::of(&parse(file, &text));
    let folder = if file.ends_with("mod.rs") {
        file.parent().expect("a folder").to_owned()
    } else {
        file.with_extension("")
    };
    let Ok(entries) = fs::read_dir(folder) else { return modules };
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        let name = path.file_stem().expect("a name").to_str().expect("UTF-8");
        // `a.rs` is looked at with the folder `a` beside it.
        let has_file = path.is_dir() && path.with_extension("rs").exists();
        if name == "mod" || has_file || for_tests.contains(name) {
            continue;
        }
        modules.extend(used_by(&if path.is_dir() { path.join("mod.rs") } else { path }));
    }
    modules
}

#[test]
fn each_module_uses_those_above_it_only() {
    let (source, order) = (root().join("redirector/src"), order());
    let mut wrong = Vec::new();
    let mut uses = 0;
    for (place, module) in order.iter().enumerate() {
        let file = source.join(module).with_extension("rs");
        let file = if file.exists() { file } else { source.join(module).join("mod.rs") };
        for used in used_by(&file) {
            let Some(of) = order.iter().position(|module| *module == used) else { continue };
            uses += 1;
            if of > place {
                wrong.push(format!("`{module}` uses `{used}`, which comes after it"));
            }
        }
    }
    assert!(uses > 40, "only {uses} uses were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_order_is_written_the_same_everywhere_and_has_every_module() {
    let text = fs::read_to_string(root().join("redirector/src/lib.rs")).expect("read lib.rs");
    let written: Vec<_> = table_under(&text, "| module |", ("", ""));
    let written: Vec<_> = written.into_iter().map(|cell| cell.trim_matches(['[', ']', '`'])).collect();
    // Below the heading and its line.
    assert_eq!(written[2..], order());
    let source = syn::parse_file(&text).expect("Rust");
    let modules = source.items.iter().filter_map(|item| match item {
        Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    assert_eq!(modules.collect::<BTreeSet<_>>(), order().into_iter().collect());
}

#[test]
fn the_large_structs_have_their_code_in_few_files() {
    for name in ["Daemon", "World"] {
        let mut files = Vec::new();
        for (file, text) in crate_files() {
            let source = parse(&file, &text);
            let blocks = source.items.iter().filter(|item| !item_is_for_tests(item));
            let mut of = blocks.filter_map(|item| match item {
                Item::Impl(block) => Some(&*block.self_ty),
                _ => None,
            });
            if of.any(|of| matches!(of, Type::Path(of) if of.path.is_ident(name))) {
                files.push(file);
            }
        }
        assert!((1..=3).contains(&files.len()), "`impl {name}` is in {files:#?}");
    }
}

#[test]
fn uses_are_found_however_they_are_written() {
    let source = "
        use crate::{a::{self, B}, c as d, text};
        use {crate::e::F, std::io};
        fn work() -> crate::g::H { let _ = crate::i(); }
        #[cfg(test)] use crate::only_for_tests;
        #[cfg(test)] mod tests { use crate::only_for_tests; }
        #[cfg(test)] mod more;
    ";
    let Uses { modules, for_tests } = Uses::of(&syn::parse_file(source).unwrap());
    assert_eq!(modules, ["a", "c", "e", "g", "i", "text"].map(str::to_owned).into());
    assert_eq!(for_tests, ["more", "tests"].map(str::to_owned).into());
}
