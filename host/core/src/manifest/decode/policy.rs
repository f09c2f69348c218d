//! Who decides: one policy, or several and how they become one.

use super::absolute;
use crate::combine::CombineRule;
use crate::manifest::formats;
use crate::manifest::report::Invalid;
use crate::manifest::section::{Item, Section};
use crate::manifest::types::{PolicyLimits, PolicySpec};
use crate::manifest::units;

/// Longest parameters of one policy, as JSON text.
const MAX_PARAMS_BYTES: usize = 64 << 10;
/// Longest name.
const NAME_BYTES: usize = 32;

/// `policy`, or `policies`.
pub(super) fn policies(
    root: &Section<'_>,
    tick_ms: Option<u64>,
    base_dir: &str,
) -> Result<Vec<PolicySpec>, Invalid> {
    let one = root.optional("policy").and_then(|item| {
        item.map(|item| item.section().and_then(|section| policy(&section, tick_ms, base_dir))).transpose()
    });
    let several = root
        .optional("policies")
        .and_then(|item| item.map(|item| list(root, item, tick_ms, base_dir)).transpose());
    match (root.has("policy"), root.has("policies")) {
        (true, true) => {
            let hint = "leave one of them out".to_owned();
            Err(root.complain("policies", "must not be given together with `policy`", Some(hint)))
        }
        (false, false) => {
            let hint = "for example `policy: { module: target-tracking, params: { … } }`".to_owned();
            Err(root.complain_here("needs a `policy`, or `policies`", Some(hint)))
        }
        (true, false) => one.map(|policy| policy.into_iter().collect()),
        (false, true) => several.map(Option::unwrap_or_default),
    }
}

fn list(
    root: &Section<'_>,
    item: Item<'_>,
    tick_ms: Option<u64>,
    base_dir: &str,
) -> Result<Vec<PolicySpec>, Invalid> {
    let sections = item.sections()?;
    if sections.is_empty() {
        return Err(root.complain("policies", "must name at least one policy", None));
    }
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut read = Vec::with_capacity(sections.len());
    for (index, section) in sections.into_iter().enumerate() {
        read.push(section.and_then(|section| {
            let policy = policy(&section, tick_ms, base_dir)?;
            if let Some((_, first)) = names.iter().find(|(other, _)| *other == policy.name) {
                let message = format!("`{}` is already the name of policies[{first}]", policy.name);
                let at = if section.has("name") { "name" } else { "module" };
                let hint = "give one of them another `name`".to_owned();
                return Err(section.complain(at, message, Some(hint)));
            }
            names.push((policy.name.clone(), index));
            Ok(policy)
        }));
    }
    read.into_iter().collect()
}

/// What a policy is called when the manifest does not say: as its module.
#[must_use]
pub fn default_policy_name(module: &str) -> String {
    let file = module.rsplit('/').next().unwrap_or(module);
    let stem = file.strip_suffix(".wasm").unwrap_or(file);
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name: String = stem.to_ascii_lowercase().chars().map(|c| if legal(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let name: String = name.chars().take(NAME_BYTES).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "policy".to_owned() } else { name.to_owned() }
}

pub(super) fn combine_rule(word: &str) -> CombineRule {
    match word {
        "max" => CombineRule::Max,
        "min" => CombineRule::Min,
        "first" => CombineRule::First,
        // The reader lets no other word through.
        _ => CombineRule::AnyOutAllIn,
    }
}

fn policy(section: &Section<'_>, tick_ms: Option<u64>, base_dir: &str) -> Result<PolicySpec, Invalid> {
    let name = section.optional("name").and_then(|item| item.map(Item::text).transpose());
    let follow = section.item("follow").and_then(Item::boolean);
    let module = section
        .item("module")
        .and_then(Item::text)
        .map(|module| if formats::module_is_path(&module) { absolute(base_dir, &module) } else { module });
    let params = match section.optional("params") {
        Ok(None) => Ok(serde_json::Value::Object(serde_json::Map::new())),
        Ok(Some(item)) => item.json().and_then(|params| {
            let bytes = params.to_string().len();
            if bytes <= MAX_PARAMS_BYTES {
                return Ok(params);
            }
            let message = format!("must not be longer than {MAX_PARAMS_BYTES} bytes as JSON, has {bytes}");
            Err(section.complain("params", message, None))
        }),
        Err(invalid) => Err(invalid),
    };
    let limits = section.item("limits").and_then(Item::section).and_then(|s| limits(&s, tick_ms));
    let module = module?;
    let name = name?.unwrap_or_else(|| default_policy_name(&module));
    Ok(PolicySpec { name, module, params: params?, limits: limits?, follow: follow? })
}

fn limits(section: &Section<'_>, tick_ms: Option<u64>) -> Result<PolicyLimits, Invalid> {
    let deadline_ms = section.optional("deadline").and_then(|item| {
        let default_ms = PolicyLimits::default().deadline_ms;
        let Some(item) = item else {
            return Ok(tick_ms.map_or(default_ms, |tick_ms| default_ms.min(tick_ms)));
        };
        let deadline_ms = item.duration_ms()?;
        match tick_ms {
            Some(tick_ms) if deadline_ms > tick_ms => {
                let [deadline, tick] = [deadline_ms, tick_ms].map(units::format_duration_ms);
                let message = format!("must not be longer than `tick`: {deadline} > {tick}");
                Err(section.complain("deadline", message, None))
            }
            _ => Ok(deadline_ms),
        }
    });
    PolicyLimits::read(section, deadline_ms)
}
