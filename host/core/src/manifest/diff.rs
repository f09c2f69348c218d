//! What changes between two scale sets, in the words of the manifest.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::export::{Tree, tree};
use super::fields::MANIFEST;
use super::report::{child, item};
use super::schema::{Field, Kind, Object};
use super::types::ScaleSet;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Field, for example `instance.memory` or `metrics[utilization].series`.
    pub path: String,
    /// Value before, as the manifest writes it; none when the field is new.
    pub before: Option<Json>,
    /// Value after; none when the field is gone.
    pub after: Option<Json>,
}

/// All fields that differ between two sets, in the order of the manifest.
/// Defaults count as if they were written. Elements of lists are told apart by
/// their `name` where they have one.
#[must_use]
pub fn diff(old: &ScaleSet, new: &ScaleSet) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", &tree(old), &tree(new), &mut changes);
    changes
}

/// Whether instances that already run keep the old value of this field, so that
/// only instances made after the change have the new one. `path` as in
/// [`Change::path`].
#[must_use]
pub fn affects_new_instances_only(path: &str) -> bool {
    let mut object: &'static Object = &MANIFEST;
    for name in path.split('.') {
        let name = name.split('[').next().unwrap_or(name);
        let Some(field) = object.field(name) else { return false };
        if field.new_instances {
            return true;
        }
        let Some(inner) = inner_object(&field.kind) else { return false };
        object = inner;
    }
    // The whole of a mapping: as strict as its strictest field.
    any_new_instances(object)
}

fn inner_object(kind: &'static Kind) -> Option<&'static Object> {
    match kind {
        Kind::List { of, .. } => Some(of),
        kind => kind.object(),
    }
}

fn any_new_instances(object: &'static Object) -> bool {
    let new_only = |field: &'static Field| {
        field.new_instances || inner_object(&field.kind).is_some_and(any_new_instances)
    };
    object.fields.iter().any(new_only)
}

fn compare(path: &str, old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    match (old, new) {
        (Tree::Map(old), Tree::Map(new)) => {
            let key_path = |key: &str| child(path, key);
            compare_keyed(&by_key(old), &by_key(new), key_path, changes);
        }
        (Tree::List(old_items), Tree::List(new_items)) => match (by_name(old_items), by_name(new_items)) {
            (Some(old), Some(new)) => compare_keyed(&old, &new, |name| format!("{path}[{name}]"), changes),
            _ => {
                for index in 0..old_items.len().max(new_items.len()) {
                    compare_optional(&item(path, index), old_items.get(index), new_items.get(index), changes);
                }
            }
        },
        (old, new) if old != new => push(path, Some(old), Some(new), changes),
        _ => {}
    }
}

type Keyed<'t> = Vec<(&'t str, &'t Tree)>;

fn by_key(fields: &[(String, Tree)]) -> Keyed<'_> {
    fields.iter().map(|(key, tree)| (key.as_str(), tree)).collect()
}

/// The `name` of an element.
fn name(tree: &Tree) -> Option<&str> {
    let Tree::Map(fields) = tree else { return None };
    fields.iter().find_map(|(key, value)| match value {
        Tree::Scalar(Json::String(name)) if key == "name" => Some(name.as_str()),
        _ => None,
    })
}

/// The elements by their names, when each has one of its own.
fn by_name(items: &[Tree]) -> Option<Keyed<'_>> {
    let mut seen = HashSet::new();
    items.iter().map(|item| name(item).filter(|name| seen.insert(*name)).map(|name| (name, item))).collect()
}

fn compare_keyed(old: &Keyed<'_>, new: &Keyed<'_>, path: impl Fn(&str) -> String, changes: &mut Vec<Change>) {
    let find = |keyed: &Keyed<'_>, key: &str| keyed.iter().position(|(other, _)| *other == key);
    for (key, old_tree) in old {
        let new_tree = find(new, key).map(|at| new[at].1);
        compare_optional(&path(key), Some(old_tree), new_tree, changes);
    }
    for (key, new_tree) in new.iter().filter(|(key, _)| find(old, key).is_none()) {
        compare_optional(&path(key), None, Some(new_tree), changes);
    }
}

fn compare_optional(path: &str, old: Option<&Tree>, new: Option<&Tree>, changes: &mut Vec<Change>) {
    match (old, new) {
        (Some(old), Some(new)) => compare(path, old, new, changes),
        (old, new) => push(path, old, new, changes),
    }
}

fn push(path: &str, old: Option<&Tree>, new: Option<&Tree>, changes: &mut Vec<Change>) {
    let json = |tree: Option<&Tree>| tree.map(|tree| tree.clone().into_json());
    changes.push(Change { path: path.to_owned(), before: json(old), after: json(new) });
}
