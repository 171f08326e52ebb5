//! What a name of `redirector` means: the file that defines it, whatever re-exports it on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprCall, File, ImplItemFn, Item, ItemMacro, ItemMod, ItemUse, Lit, Macro, Meta,
    PatIdent, UseTree, Visibility, parse_str,
    visit::{self, Visit},
};

use crate::source::{is_for_tests, item_is_for_tests, parse};

/// The segments of a path.
pub(crate) type Segments = Vec<String>;

/// A module: a file, or a part of one in braces.
#[derive(Debug, Default)]
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// What it uses outside of its tests, as it is written there. A re-export alone is no use.
    pub(crate) uses: BTreeSet<Segments>,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// What a `use` makes of a name: a module and a function can have the same one.
    imports: BTreeMap<String, BTreeSet<Segments>>,
    globs: BTreeSet<Segments>,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// To something that the module defines.
    Item(Segments),
    /// To a module itself.
    Module(Segments),
}

/// All modules of a crate, by their paths. The crate itself has none.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) modules: BTreeMap<Segments, Module>,
}

impl Names {
    /// Reads `lib.rs` and the files that belong to it.
    pub(crate) fn of(files: &BTreeMap<PathBuf, String>) -> Self {
        let mut names = Self::default();
        names.add_file(files, Segments::new(), Path::new("lib.rs"));
        names
    }

    fn add_file(&mut self, files: &BTreeMap<PathBuf, String>, module: Segments, file: &Path) {
        let reader = Reader::new(module, file).read(&parse(file, &files[file]));
        self.modules.extend(reader.modules);
        for module in reader.in_files {
            let below: PathBuf = module.iter().collect();
            let candidates = [below.with_extension("rs"), below.join("mod.rs")];
            let file = candidates.iter().find(|file| files.contains_key(*file));
            let file = file.unwrap_or_else(|| panic!("there is none of {candidates:?}"));
            self.add_file(files, module, file);
        }
    }

    /// Where a path that is written in a module leads. `None`: out of the crate, or to a variable.
    pub(crate) fn resolve(&self, from: &[String], path: &[String]) -> Option<Meaning> {
        self.walk(from, path, &mut Vec::new())
    }

    /// What is written as a path of this crate and leads nowhere.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        for (from, module) in &self.modules {
            let own = module.uses.iter().filter(|path| ["crate", "self", "super"].contains(&&*path[0]));
            let lost = own.filter(|path| self.resolve(from, path).is_none());
            unknown.extend(lost.map(|path| format!("{}: {}", module.file.display(), path.join("::"))));
        }
        unknown
    }

    /// `under_way` has what is being looked for: names that lead to each other have no meaning.
    fn walk(
        &self,
        from: &[String],
        path: &[String],
        under_way: &mut Vec<(Segments, Segments)>,
    ) -> Option<Meaning> {
        let asked = (from.to_owned(), path.to_owned());
        if under_way.contains(&asked) {
            return None;
        }
        under_way.push(asked);
        let meaning = self.walk_down(from, path, under_way);
        under_way.pop();
        meaning
    }

    fn walk_down(
        &self,
        from: &[String],
        path: &[String],
        under_way: &mut Vec<(Segments, Segments)>,
    ) -> Option<Meaning> {
        let mut at = from.to_owned();
        let mut rest = path;
        while let [first, others @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()?),
                _ => break,
            }
            rest = others;
        }
        while let [name, others @ ..] = rest {
            let module = self.modules.get(&at)?;
            let is_child = module.children.contains(name);
            if is_child && !others.is_empty() {
                at.push(name.clone());
                rest = others;
                continue;
            }
            if module.items.contains(name) {
                return Some(Meaning::Item(at));
            }
            let imported = module.imports.get(name).into_iter().flatten();
            let imported = imported.map(|import| [import, others].concat());
            let globbed = module.globs.iter().map(|glob| [glob, rest].concat());
            let found = imported.chain(globbed).filter_map(|path| self.walk(&at, &path, under_way));
            let found: Vec<_> = found.collect();
            let item = found.iter().find(|meaning| matches!(meaning, Meaning::Item(_)));
            if let Some(meaning) = item.or(found.first().filter(|_| !is_child)) {
                return Some(meaning.clone());
            }
            if !is_child {
                return None;
            }
            at.push(name.clone());
            rest = others;
        }
        Some(Meaning::Module(at))
    }
}

/// Names with a block after them: what a macro of ours defines when it is called as an item.
fn before_braces(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let names = tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(name), TokenTree::Group(block)] if block.delimiter() == Delimiter::Brace => {
            Some(name.to_string())
        }
        _ => None,
    });
    names.collect()
}

/// Reads one file.
struct Reader<'a> {
    file: &'a Path,
    /// The module that is being read.
    at: Segments,
    modules: BTreeMap<Segments, Module>,
    /// The modules that are in files of their own.
    in_files: Vec<Segments>,
    /// Its variables: where one has the name of a function, only a call is one of the function.
    variables: BTreeSet<String>,
    called: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn new(at: Segments, file: &'a Path) -> Self {
        let modules = [(at.clone(), Module { file: file.to_owned(), ..Module::default() })].into();
        Self { file, at, modules, in_files: Vec::new(), variables: BTreeSet::new(), called: BTreeSet::new() }
    }

    fn read(mut self, source: &File) -> Self {
        self.visit_file(source);
        let is_variable = |name: &String| self.variables.contains(name) && !self.called.contains(name);
        for module in self.modules.values_mut() {
            module.uses.retain(|path| path.len() > 1 || !path.iter().any(is_variable));
        }
        self
    }

    fn module(&mut self) -> &mut Module {
        self.modules.get_mut(&self.at).expect("the module that is being read")
    }

    fn add_import(&mut self, tree: &UseTree, before: &Segments, is_use: bool) {
        let with = |name: &syn::Ident| [&before[..], &[name.to_string()]].concat();
        let (name, path) = match tree {
            UseTree::Path(path) => return self.add_import(&path.tree, &with(&path.ident), is_use),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_import(tree, before, is_use));
            }
            UseTree::Glob(_) => {
                self.module().globs.insert(before.clone());
                return;
            }
            UseTree::Name(name) if name.ident == "self" => {
                (before.last().expect("a path before `self`").clone(), before.clone())
            }
            UseTree::Name(name) => (name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(rename) if rename.ident == "self" => (rename.rename.to_string(), before.clone()),
            UseTree::Rename(rename) => (rename.rename.to_string(), with(&rename.ident)),
        };
        if is_use {
            self.module().uses.insert(path.clone());
        }
        if name != "_" {
            self.module().imports.entry(name).or_default().insert(path);
        }
    }

    fn add_path(&mut self, path: &syn::Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.module().uses.insert(segments);
        }
    }

    /// Finds paths in what a macro or an attribute is given.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        // Colons since the last name.
        let mut colons = 0;
        let mut is_after_dot = false;
        for token in tokens {
            let is_dot = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.');
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) if is_after_dot => drop(name),
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_scanned(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    // What is called.
                    if group.delimiter() == Delimiter::Parenthesis && !path.is_empty() && colons == 0 {
                        if let [name] = &path[..] {
                            self.called.insert(name.clone());
                        }
                        self.module().uses.insert(std::mem::take(&mut path));
                    }
                    self.add_scanned(&mut path);
                    self.scan(group.stream());
                }
                TokenTree::Literal(_) | TokenTree::Punct(_) => self.add_scanned(&mut path),
            }
            is_after_dot = is_dot;
        }
        self.add_scanned(&mut path);
    }

    /// A lower-case name alone is a variable.
    fn add_scanned(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        let is_type = |name: &String| name.starts_with(|first: char| first.is_uppercase());
        if path.len() > 1 || path.first().is_some_and(is_type) {
            self.module().uses.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if item_is_for_tests(item) {
            return;
        }
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        let name = name.map(ToString::to_string);
        self.module().items.extend(name);
        if let Item::Macro(ItemMacro { ident: None, mac, .. }) = item {
            self.module().items.extend(before_braces(mac.tokens.clone()));
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !is_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        self.module().children.insert(name.clone());
        self.at.push(name);
        if module.content.is_some() {
            let inner = Module { file: self.file.to_owned(), ..Module::default() };
            self.modules.insert(self.at.clone(), inner);
            visit::visit_item_mod(self, module);
        } else {
            self.in_files.push(self.at.clone());
        }
        self.at.pop();
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        let is_use = matches!(import.vis, Visibility::Inherited);
        self.add_import(&import.tree, &Segments::new(), is_use);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_path(path);
        visit::visit_path(self, path);
    }

    fn visit_pat_ident(&mut self, variable: &'ast PatIdent) {
        self.variables.insert(variable.ident.to_string());
        visit::visit_pat_ident(self, variable);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Expr::Path(function) = &*call.func {
            self.called.extend(function.path.get_ident().map(ToString::to_string));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.scan(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    /// Serde takes paths as texts.
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let Meta::List(list) = &attribute.meta else { return };
        self.scan(list.tokens.clone());
        for token in list.tokens.clone() {
            let TokenTree::Literal(literal) = token else { continue };
            let Lit::Str(text) = Lit::new(literal) else { continue };
            if let Ok(path) = parse_str::<syn::Path>(&text.value()) {
                self.add_path(&path);
            }
        }
    }
}
