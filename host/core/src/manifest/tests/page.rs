//! The field tables of the reference page.

use std::fmt::Write;

use super::super::fields::MANIFEST;
use super::super::formats::list;
use super::super::schema::{Field, Kind, Object, Presence};
use super::units::{format_duration_ms, format_size_bytes};

/// Markdown: a section per mapping, outer ones first; mappings that are the same
/// share one.
pub(super) fn fields() -> String {
    let mut objects = Vec::new();
    collect(&MANIFEST, String::new(), &mut objects);
    let mut page = String::new();
    for (object, paths) in objects {
        let titles: Vec<_> =
            paths.iter().filter(|path| !path.is_empty()).map(|path| format!("`{path}`")).collect();
        let title = if titles.is_empty() { "The manifest".to_owned() } else { titles.join(", ") };
        section(object, &title, &mut page);
    }
    page.push('\n');
    page
}

fn collect(object: &'static Object, path: String, found: &mut Vec<(&'static Object, Vec<String>)>) {
    match found.iter_mut().find(|(other, _)| std::ptr::eq(*other, object)) {
        Some((_, paths)) => return paths.push(path),
        None => found.push((object, vec![path.clone()])),
    }
    for field in object.fields {
        let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        match &field.kind {
            Kind::List { of, .. } => collect(of, format!("{path}[]"), found),
            kind => {
                if let Some(object) = kind.object() {
                    collect(object, path, found);
                }
            }
        }
    }
}

fn section(object: &Object, title: &str, page: &mut String) {
    let _ =
        writeln!(page, "\n### {title}\n\n| field | value | default | meaning |\n| --- | --- | --- | --- |");
    for field in object.fields {
        let (name, value, default) = (field.name, value(&field.kind), default(field));
        let marked = if field.new_instances { " ↻" } else { "" };
        let _ =
            writeln!(page, "| `{name}`{marked} | {value} | {default} | {} |", field.doc.replace('|', "\\|"));
    }
}

fn default(field: &Field) -> String {
    match field.presence {
        Presence::Required => "**required**".to_owned(),
        Presence::Optional => "none".to_owned(),
        Presence::Default(text) => format!("`{text}`"),
        Presence::Empty => "`{}`".to_owned(),
    }
}

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Integer { min, max } => format!("whole number, {min} to {max}"),
        Kind::Boolean => "`true` or `false`".to_owned(),
        Kind::Duration { min_ms, max_ms } => {
            format!("duration, {} to {}", format_duration_ms(*min_ms), format_duration_ms(*max_ms))
        }
        Kind::Size { min_bytes, max_bytes, multiple_bytes } => {
            let range =
                format!("size, {} to {}", format_size_bytes(*min_bytes), format_size_bytes(*max_bytes));
            match multiple_bytes {
                1 => range,
                step => format!("{range}, in steps of {}", format_size_bytes(*step)),
            }
        }
        Kind::Text(format) => format.describe().to_owned(),
        Kind::Choice(words) => list(words),
        Kind::Object(_) => "mapping".to_owned(),
        Kind::List { max, .. } => format!("list of mappings, at most {max}"),
        Kind::Texts { of, max } => format!("list, at most {max}; each element {}", of.describe()),
        Kind::Positive => "number greater than 0".to_owned(),
        Kind::Range => "two numbers such as `[0, 1]`".to_owned(),
        Kind::Json => "mapping".to_owned(),
        Kind::Either(kinds) => kinds.iter().map(value).collect::<Vec<_>>().join(", or "),
    }
}
