//! What was measured, for people. Pure.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use regatta_util::thousands;

use crate::modules::Module;

/// One line of the comparison: a way to decide, with median and 99th percentile in µs per size of the set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) title: &'static str,
    pub(crate) by_instances: Vec<(u32, f64, f64)>,
    /// CPU time of one decision, all processes, at the size that the promises are about.
    pub(crate) cpu_us: f64,
}

/// The ways side by side.
pub(crate) fn comparison(lines: &[Line]) -> String {
    let sizes = lines.first().map(|line| line.by_instances.as_slice()).unwrap_or_default();
    let mut header = vec!["median / p99, µs".to_owned()];
    header.extend(
        sizes.iter().map(|(instances, ..)| format!("{} instances", thousands(u64::from(*instances)))),
    );
    header.push("CPU at 1,000, µs".to_owned());
    let rows = lines.iter().map(|line| {
        let mut row = vec![line.title.to_owned()];
        row.extend(line.by_instances.iter().map(|&(_, median, p99)| pair(median, p99)));
        row.push(number(line.cpu_us));
        row
    });
    table(header, rows)
}

/// The modules side by side.
pub(crate) fn modules(modules: &[Module]) -> String {
    let sizes = modules.first().map(|module| module.by_instances.as_slice()).unwrap_or_default();
    let mut header: Vec<String> =
        ["module", "KB", "compile, ms", "cached, ms", "instantiate, µs"].map(str::to_owned).to_vec();
    let title = |instances: u32| format!("{}: median / p99, µs", thousands(u64::from(instances)));
    header.extend(sizes.iter().map(|size| title(size.instances)));
    header.extend(["fuel at 1,000", "memory, KiB"].map(str::to_owned));
    let rows = modules.iter().map(|module| {
        let kilobytes = module.bytes as f64 / 1e3;
        let mut row = vec![
            module.name.clone(),
            number(kilobytes),
            number(module.compile_ms),
            number(module.cached_load_ms),
            number(module.instantiate_us),
        ];
        row.extend(module.by_instances.iter().map(|size| pair(size.median_us, size.p99_us)));
        let fuel = module.by_instances.iter().find(|size| size.instances == 1_000).map(|size| size.fuel);
        row.push(fuel.map_or_else(String::new, thousands));
        row.push(module.memory_kib.map_or_else(|| "too much".to_owned(), thousands));
        row
    });
    table(header, rows)
}

fn table(header: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    // Never fitted to the terminal: a broken line is harder to read than a long one.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn pair(median: f64, p99: f64) -> String {
    format!("{} / {}", number(median), number(p99))
}

/// As exact as a person reads it.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        thousands(value.abs().round() as u64)
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Decisions;

    #[test]
    fn numbers_are_as_exact_as_people_read_them() {
        for (value, text) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.0, "1,234,567"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn ways_are_side_by_side() {
        let line = |title, median| Line {
            title,
            by_instances: vec![(10, median, 2.0 * median), (1_000, 10.0 * median, 1_500.0)],
            cpu_us: 7.0,
        };
        let text = comparison(&[line("native", 1.0), line("webhook", 250.0)]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words.len(), 3, "{text}");
        assert!(words[0].join(" ").contains("10 instances 1,000 instances"), "{text}");
        assert_eq!(words[1].join(" "), "native 1.00 / 2.00 10.0 / 1,500 7.00");
        assert_eq!(words[2].join(" "), "webhook 250 / 500 2,500 / 1,500 7.00");
    }

    #[test]
    fn modules_are_side_by_side() {
        let decisions = Decisions {
            instances: 1_000,
            median_us: 25.0,
            p99_us: 40.0,
            guest_us: 9.0,
            fuel: 12_345,
            decisions: 100,
        };
        let module = Module {
            name: "go".to_owned(),
            bytes: 1_234_000,
            compile_ms: 300.4,
            cached_load_ms: 2.5,
            instantiate_us: 5.0,
            by_instances: vec![decisions],
            memory_kib: None,
        };
        let text = modules(&[module]);
        let row: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!(row.join(" "), "go 1,234 300 2.50 5.00 25.0 / 40.0 12,345 too much");
    }
}
