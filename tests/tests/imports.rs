//! No import circle between the files of a crate: a reader can read each crate from the bottom up.
//!
//! Counted from the syntax tree: an edge leads from one file to another for each path outside tests that begins
//! with `crate::`, `super::` or `self::` and names something in the other file. A file and the files
//! of its own submodules are one unit, so paths between them do not count.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic outside its test functions too"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::visit::{self, Visit};

/// A module's path below its crate's root; empty for the root itself.
type Module = Vec<String>;

/// The crates that are libraries of their own.
const CRATES: [&str; 11] = [
    "policies",
    "wire",
    "map",
    "config",
    "os",
    "membership",
    "actors",
    "supervisor",
    "registry",
    "lab",
    "sim",
];

/// Collects the paths of one file that begin in its own crate.
struct Paths<'a> {
    module: &'a Module,
    found: BTreeSet<Module>,
}

impl Paths<'_> {
    /// Resolves `crate`, `super` and `self`; other paths lead out of the crate, or stay in the file.
    fn add(&mut self, segments: &[String]) {
        let mut base = self.module.clone();
        let mut rest = segments;
        match rest.split_first() {
            Some((first, others)) if first == "crate" => (base, rest) = (Module::new(), others),
            Some((first, others)) if first == "self" => rest = others,
            Some((first, _)) if first == "super" => {}
            Some(_) | None => return,
        }
        while let Some((_, others)) = rest.split_first().filter(|(first, _)| *first == "super") {
            base.pop();
            rest = others;
        }
        base.extend(rest.iter().cloned());
        self.found.insert(base);
    }

    fn add_tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(rename) => self.add(&with(&rename.ident)),
            syn::UseTree::Glob(_) => self.add(prefix),
            syn::UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| self.add_tree(prefix, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        // Modules inside a file are its tests.
        let _ = module;
    }
}

/// The source files of a crate, by module.
fn modules(folder: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(folder).unwrap().with_extension("");
                let mut module: Module = relative
                    .iter()
                    .map(|part| part.to_str().unwrap().to_owned())
                    .collect();
                if matches!(module.last().unwrap().as_str(), "mod" | "lib" | "main") {
                    module.pop();
                }
                if !module.iter().any(|part| part == "tests") {
                    found.insert(module, path);
                }
            }
        }
    }
    found
}

/// Edges from each file to those that it names.
fn edges(folder: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules(folder);
    let mut edges = BTreeMap::new();
    for (module, path) in modules.iter().filter(|(module, _)| !module.is_empty()) {
        let mut paths = Paths {
            module,
            found: BTreeSet::new(),
        };
        paths.visit_file(&syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap());
        let targets = paths.found.into_iter().filter_map(|mut target| {
            while !modules.contains_key(&target) {
                target.pop()?;
            }
            let is_other = !target.starts_with(module) && !module.starts_with(&target);
            is_other.then_some(target)
        });
        edges.insert(module.clone(), targets.collect());
    }
    edges
}

/// A circle of files, if there is one: files are taken away as long as one names no other that is left.
fn circle(mut edges: BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    loop {
        let leaf = edges
            .iter()
            .find(|(_, targets)| targets.iter().all(|target| !edges.contains_key(target)))
            .map(|(module, _)| module.clone());
        match leaf {
            Some(module) => drop(edges.remove(&module)),
            None => return edges.into_keys().map(|module| module.join("::")).collect(),
        }
    }
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut circles = BTreeMap::new();
    for name in CRATES {
        let edges = edges(&root.join(name).join("src"));
        assert!(edges.len() > 2, "{name} has too few files to be counted");
        let circle = circle(edges);
        if !circle.is_empty() {
            circles.insert(name, circle);
        }
    }
    assert!(
        circles.is_empty(),
        "circles of imports, by crate: {circles:#?}"
    );
}

#[test]
fn a_circle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let edge = |from: &str, to: &str| (module(from), BTreeSet::from([module(to)]));
    assert_eq!(
        circle([edge("a", "b"), edge("b", "c")].into()),
        Vec::<String>::new()
    );
    let knot = [edge("a", "b"), edge("b", "c"), edge("c", "b")].into();
    assert_eq!(circle(knot), ["a", "b", "c"]);
}
