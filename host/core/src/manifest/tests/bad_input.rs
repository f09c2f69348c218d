//! Manifests that are refused, with every problem at its place.

use super::*;

#[test]
fn ten_mistakes_are_ten_problems() {
    let text = "\
version: regatta/v2
name: Web
tick: 60
capacity: { min: 9, max: 8 }
image:
  disk: { path: golden.raw, sha256: abc }
  kernel: vmlinux
  cmdline: console=ttyS0 ip=10.0.0.1
network: { mode: loopback, pool: 127.40.0.7/24, port: 8080 }
helth: { http: /healthz }
load_balancer:
\tlisten: localhost:80
";
    // A tab for indentation is a syntax error: nothing else can be told.
    assert_eq!(bad(text).len(), 1);
    let problems = read(&text.replace('\t', "  ")).expect_err("ten mistakes");
    assert_eq!(problems.total, 10, "{}", problems.render());
    insta::assert_snapshot!(problems.render());
}

#[test]
fn broken_yaml_is_one_problem_with_its_place() {
    let deep = format!("a: {}", "[".repeat(200));
    let nested = format!("a: {}1{}", "[".repeat(60), "]".repeat(60));
    let cases = [
        "",
        "# nothing\n",
        "just text",
        "- a\n- b\n",
        "a: [",
        "a: 'x",
        "a: b: c",
        "\ta: 1\n\tb: 2",
        "a: *x",
        "a: &a [*a]",
        "a: 1\n---\nb: 2\n",
        "a: \u{0}",
        "%YAML 9.9\n---\na: 1",
        "a: !foo 1",
        "a: !!int x",
        &deep,
        &nested,
    ];
    let found: Vec<_> = cases.iter().map(|text| bad(text)).collect();
    for (text, problems) in cases.iter().zip(&found) {
        assert_eq!(problems.len(), 1, "{text:?}: {problems:?}");
    }
    insta::assert_debug_snapshot!(found.concat());
}

#[test]
fn bombs_are_refused_within_their_budget() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    let problems = bad(&text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("the document is too large"), "{problems:?}");
    let wide = format!("a: [{}]", "1,".repeat(60_000));
    assert!(bad(&wide)[0].contains("the document is too large"));
    let large = " ".repeat(MAX_MANIFEST_BYTES + 1);
    assert!(bad(&large)[0].contains("must not be larger than 1048576 bytes, has 1048577"));
}

#[test]
fn what_is_not_utf8_is_shown_where_it_starts() {
    let problems =
        read_manifest(b"version: regatta/v1\nname: w\xffb\n", "set.yaml", "/").expect_err("not UTF-8");
    let problem = &problems.problems[0];
    assert_eq!((problem.line, problem.column), (2, 8));
}

#[test]
fn a_flood_of_problems_is_cut_and_counted() {
    let text: String = (0..300).map(|i| format!("field{i}: 1\n")).collect();
    let problems = read(&format!("{MINIMAL}{text}")).expect_err("300 unknown fields");
    assert_eq!((problems.total, problems.problems.len()), (300, MAX_PROBLEMS));
    assert!(problems.render().ends_with("set.yaml has 300 problems, the first 100 are shown\n"));
}

/// Every line replaces a line of a good manifest and must be refused for one
/// reason; the snapshot shows which.
#[test]
fn single_mistakes() {
    let lines = include_str!("single_mistakes.txt");
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let problems = bad(&minimal_with(line));
        if problems.len() != 1 {
            wrong.push((line, problems.clone()));
        }
        text.push_str(&format!("{line}\n    {}\n", problems[0]));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    insta::assert_snapshot!(text);
}

#[test]
fn duplicates_and_keys_that_are_no_text_are_all_found() {
    let text = format!("{MINIMAL}name: again\nhealth: {{ tcp: true, tcp: false, 7: x, [a]: b, ~: c }}\n");
    insta::assert_debug_snapshot!(bad(&text));
}

#[test]
fn an_unreadable_section_does_not_hide_the_others() {
    let text = "version: regatta/v1\nname: 7\ncapacity: 3\nimage: []\ninstance: 1\nnetwork: x\nhealth: 1\n\
        load_balancer: 1\nmetrics: 1\npolicy: 1\nguards: 1\nrepair: 1\n";
    insta::assert_debug_snapshot!(bad(text));
}
