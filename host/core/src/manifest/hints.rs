//! What a message says about what was expected and what was probably meant.

use super::fields::MANIFEST;
use super::formats;
use super::report::child;
use super::schema::{Kind, Object, Presence};

/// What a kind is, within a sentence.
pub(crate) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Duration { .. } => "a duration such as `5s`".to_owned(),
        Kind::Size { .. } => "a size such as `512MiB`".to_owned(),
        Kind::Text(format) => format.describe().to_owned(),
        Kind::Choice([word]) => format!("`{word}`"),
        Kind::Choice(words) => format!("one of {}", formats::list(words)),
        Kind::Object(object) => {
            let required: Vec<_> =
                object.fields.iter().filter(|f| f.presence == Presence::Required).collect();
            match required.as_slice() {
                [] => "a mapping".to_owned(),
                fields => {
                    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                    format!("a mapping with {}", formats::list(&names))
                }
            }
        }
        Kind::List { .. } => "a list".to_owned(),
        Kind::Texts { of, .. } => format!("a list, each element {}", of.describe()),
        Kind::Positive => "a number greater than 0".to_owned(),
        Kind::Range => "two numbers such as `[0, 1]`".to_owned(),
        Kind::Json => "a mapping".to_owned(),
        Kind::Either(kinds) => kinds.iter().map(describe).collect::<Vec<_>>().join(" or "),
    }
}

/// What to say about a field that is like no other here.
pub(crate) fn other_fields(object: &'static Object, path: &str, key: &str) -> String {
    let mut elsewhere = Vec::new();
    find_field(&MANIFEST, "", key, &mut elsewhere);
    elsewhere.retain(|found| found != &child(path, key));
    match elsewhere.first() {
        Some(found) => format!("there is a field `{found}`"),
        None => {
            let names: Vec<_> = object.fields.iter().map(|field| field.name).collect();
            format!("fields here are {}", formats::list(&names))
        }
    }
}

fn find_field(object: &'static Object, path: &str, key: &str, found: &mut Vec<String>) {
    for field in object.fields {
        let path = child(path, field.name);
        if field.name == key {
            found.push(path.clone());
        }
        match &field.kind {
            Kind::List { of, .. } => find_field(of, &format!("{path}[]"), key, found),
            kind => {
                if let Some(object) = kind.object() {
                    find_field(object, &path, key, found);
                }
            }
        }
    }
}

/// The word that `text` was probably meant to be.
#[must_use]
pub fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    if text.len() > 64 {
        return None;
    }
    let plain = text.to_lowercase().replace(['-', ' '], "_");
    words
        .map(|word| (strsim::osa_distance(&plain, &word.replace('-', "_")), word))
        .filter(|(distance, word)| *distance <= (word.len().min(plain.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, word)| *distance < word.len())
        .map(|(_, word)| word)
}
