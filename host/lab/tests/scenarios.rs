//! The scenarios of `tests/scenarios` hold what came of them. `REGATTA_BLESS=1` writes that anew.

use std::fs;
use std::path::Path;

use regatta_lab::scenario::{STEPS, play};

#[test]
fn every_scenario_plays_as_it_is_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let bless = std::env::var_os("REGATTA_BLESS").is_some_and(|bless| bless == "1");
    let (mut all, mut differ) = (String::new(), Vec::new());
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let played = play(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if bless {
            fs::write(&path, &played).unwrap();
        } else if played != text {
            differ.push(format!("{}:\n{played}", path.display()));
        }
        all.push_str(&text);
    }
    assert!(differ.is_empty(), "REGATTA_BLESS=1 writes them anew:\n{}", differ.join("\n"));
    let used = |step: &str| all.contains(&format!("\n> {}", step.split(' ').next().unwrap_or(step)));
    let unused: Vec<_> = STEPS.iter().map(|(step, _)| *step).filter(|step| !used(step)).collect();
    assert_eq!(unused, ["policy wants N"; 0], "steps that no scenario shows");
}
