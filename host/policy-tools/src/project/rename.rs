//! The name of a policy, and a template with another name in it.

/// The name that all templates have.
const TEMPLATE_NAME: &str = "tolerant-target";
/// Longest name, bytes.
const NAME_BYTES: usize = 64;

/// Whether a policy may be called so: the rule for what `describe` says.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !name.is_empty() && name.len() <= NAME_BYTES && name.bytes().all(valid) {
        return Ok(());
    }
    Err(format!("{name:?} is not 1 to {NAME_BYTES} lower-case letters, digits and `-`"))
}

/// A template's text with the template's name replaced in all its spellings.
pub(super) fn renamed(text: &str, name: &str) -> String {
    text.replace(TEMPLATE_NAME, name)
        .replace(&snake(TEMPLATE_NAME), &snake(name))
        .replace(&camel(TEMPLATE_NAME), &camel(name))
}

/// `my-policy` as `my_policy`.
fn snake(name: &str) -> String {
    name.replace('-', "_")
}

/// `my-policy` as `MyPolicy`; `2-fast` as `Policy2Fast`, as no type begins with a digit.
fn camel(name: &str) -> String {
    let mut text = String::new();
    for word in name.split('-') {
        let mut letters = word.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    if text.starts_with(|first: char| first.is_ascii_uppercase()) { text } else { format!("Policy{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_policy_may_have() {
        for name in ["x", "my-policy", "2-fast", &"a".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "My", "a_b", "a b", "ä", "../x", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_name_is_replaced_in_every_spelling() {
        let text = "tolerant-target tolerant_target.wasm struct TolerantTarget; Tolerant target";
        assert_eq!(renamed(text, "my-policy"), "my-policy my_policy.wasm struct MyPolicy; Tolerant target");
        assert_eq!(renamed("TolerantTarget", "2-fast"), "Policy2Fast");
    }
}
