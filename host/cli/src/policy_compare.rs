//! `regatta policy compare`: shadows beside the active policy.

use regatta_api::Client;
use regatta_api::types::CompareQuery;
use regatta_core::compare::{Comparison, Pair, Side};

use super::Io;
use super::args::{CompareArgs, Output};
use super::exit::Outcome;
use super::render::{Columns, json, or_dash, plain_line, right, text};
use super::time::number;

pub(super) async fn compare(client: &Client, args: CompareArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let CompareArgs { set, ticks, metric, target } = args;
    let query = CompareQuery { ticks: Some(ticks), metric, target };
    let comparison = client.compare_policies(&set, &query).await?;
    if output == Output::Json {
        return json(&comparison, io);
    }
    let Some((first, last)) = comparison.ticks.filter(|_| !comparison.pairs.is_empty()) else {
        writeln!(
            io.err,
            "no shadow of {set} was judged in these ticks; `regatta policy shadow {set} FILE` begins with one"
        )?;
        return Ok(());
    };
    writeln!(io.out, "{set}, ticks {first} to {last}; {}\n", basis(&comparison))?;
    for (index, pair) in comparison.pairs.iter().enumerate() {
        if index > 0 {
            writeln!(io.out)?;
        }
        print(pair, io)?;
    }
    if comparison.load.is_some() {
        writeln!(
            io.out,
            "\nIn instance-hours: SHORT is load that the capacity leaves uncarried, SPARE capacity beyond the load."
        )?;
    }
    Ok(())
}

fn basis(comparison: &Comparison) -> String {
    match &comparison.load {
        Some(load) => format!("the load is {} at {} per instance", load.metric, number(load.target)),
        None => "the load is not known: give --metric and --target".to_owned(),
    }
}

fn print(pair: &Pair, io: &mut Io<'_>) -> Outcome {
    writeln!(io.out, "#{} beside {}: {}", pair.number, pair.slot, verdict(pair))?;
    let headings =
        ["POLICY", "VERSION", "DIGEST", "FAILED", "INSTANCE-HOURS", "SHORT", "SPARE", "FUEL", "TIME"];
    let mut table = Columns::new(&headings, io);
    let sides = [("active", &pair.active), ("shadow", &pair.shadow)];
    for (role, side) in sides {
        table.row(row(role, side));
    }
    table.print(2, io)?;
    for (role, side) in sides.into_iter().filter(|(_, side)| !side.unknown_metrics.is_empty()) {
        let metrics = side.unknown_metrics.join(", ");
        let told = format!("{role} {} asks for metrics that the set does not have: {metrics}", side.name);
        writeln!(io.out, "  {}", plain_line(&told))?;
    }
    Ok(())
}

fn row(role: &str, side: &Side) -> Vec<comfy_table::Cell> {
    let hours = |seconds: f64| format!("{:.3}", seconds / 3600.0);
    vec![
        text(format!("{role} {}", side.name)),
        text(&side.version),
        text(side.digest.short()),
        right(side.failures),
        right(hours(side.instance_seconds)),
        right(or_dash(side.short_instance_seconds.map(hours))),
        right(or_dash(side.spare_instance_seconds.map(hours))),
        right(side.mean_fuel),
        right(format!("{} µs", side.mean_duration_us)),
    ]
}

/// How the two agree, in a sentence.
fn verdict(pair: &Pair) -> String {
    if pair.judged == 0 {
        return "there is no tick in which both gave a decision".to_owned();
    }
    let share = pair.agreed * 100 / pair.judged;
    let agreed = format!("agreed in {} of {} ticks ({share} %)", pair.agreed, pair.judged);
    match pair.greatest_difference {
        Some((difference, tick)) => format!(
            "{agreed}, {:+.2} instances on average, {difference:+} at most (tick {tick})",
            pair.mean_difference
        ),
        None => agreed,
    }
}
