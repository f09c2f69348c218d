//! What holds for every manifest.

use proptest::prelude::*;

use super::generate::{json, scale_set};
use super::*;

/// Text that looks like YAML often enough to get past the parser.
fn yaml_like() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "version: regatta/v1\n",
        "name: ",
        "capacity: ",
        "image: ",
        "policy:\n",
        "  params: ",
        "metrics:\n",
        "- ",
        "min: 1",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "\n",
        "  ",
        "\t",
        "&a ",
        "*a",
        "<<: ",
        "'",
        "\"",
        "|",
        ">-\n",
        "~",
        "1",
        "-1",
        "1e999",
        "0x1f",
        ".nan",
        "5s",
        "512MiB",
        "127.40.0.0/24",
        "!!int ",
        "!x ",
        "# c",
        "---\n",
        "...",
        "%YAML 1.2\n",
        "日本",
        "\u{0}",
        "\r\n",
        "\u{feff}",
        "? ",
        "\u{2028}",
        "\"\\x01\"",
    ]);
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// Whatever is refused can be shown, and every mark lies within its excerpt.
fn check(result: Result<Manifest, Problems>) {
    let Err(problems) = result else { return };
    assert!(!problems.problems.is_empty() && problems.total >= problems.problems.len());
    assert!(problems.render().ends_with('\n'));
    for problem in &problems.problems {
        assert!(problem.line >= 1 && problem.column >= 1 && problem.mark_len >= 1, "{problem:?}");
        assert!(problem.mark_start as usize <= problem.excerpt.chars().count(), "{problem:?}");
        assert!(!problem.message.chars().any(char::is_control), "{problem:?}");
        assert!(!problem.message.contains("that was not recorded"), "{problem:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(read_manifest(&bytes, "set.yaml", "/"));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        check(read(&text));
    }

    #[test]
    fn no_yaml_panics(text in yaml_like()) {
        check(read(&text));
        check(read(&format!("{MINIMAL}{text}")));
    }

    #[test]
    fn no_damage_to_a_good_manifest_panics(set in scale_set(), at in any::<prop::sample::Index>(), junk in "\\PC{0,3}|[\\[\\]{}:,\n\t'\"&*-]{1,3}", cut in 0..4_usize) {
        let text = to_manifest_yaml(&set);
        let start = text.floor_char_boundary(at.index(text.len()));
        let end = text.ceil_char_boundary((start + cut).min(text.len()));
        check(read(&format!("{}{junk}{}", &text[..start], &text[end..])));
    }

    #[test]
    fn any_value_in_any_field_is_accepted_or_explained(field in prop::sample::select(super::table::field_paths()), value in json()) {
        let mut manifest = super::table::full_manifest();
        if super::table::replace(&mut manifest, &field, value) {
            check(read(&manifest.to_string()));
        }
    }

    #[test]
    fn what_is_exported_reads_back(set in scale_set()) {
        let yaml = to_manifest_yaml(&set);
        let from_yaml = read(&yaml).map_err(|problems| TestCaseError::fail(problems.render()))?.set;
        prop_assert_eq!(&from_yaml, &set, "{}", yaml);
        let json = to_manifest_json(&set).to_string();
        let from_json = read(&json).map_err(|problems| TestCaseError::fail(problems.render()))?.set;
        prop_assert_eq!(&from_json, &set, "{}", json);
    }

    #[test]
    fn a_set_survives_its_own_serialization(set in scale_set()) {
        let json = serde_json::to_string(&set).expect("a set is JSON");
        prop_assert_eq!(serde_json::from_str::<ScaleSet>(&json).expect("and reads back"), set);
    }

    #[test]
    fn a_diff_is_empty_exactly_for_equal_sets(old in scale_set(), new in scale_set()) {
        prop_assert_eq!(diff(&old, &old), vec![]);
        prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
        let forth: std::collections::BTreeSet<_> = diff(&old, &new).into_iter().map(|c| c.path).collect();
        let back: std::collections::BTreeSet<_> = diff(&new, &old).into_iter().map(|c| c.path).collect();
        prop_assert_eq!(forth, back);
    }
}
