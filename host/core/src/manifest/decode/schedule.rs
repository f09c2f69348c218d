//! Times at which something else counts.

use super::Bounds;
use crate::manifest::network::Network;
use crate::manifest::report::Invalid;
use crate::manifest::section::{Item, Section};
use crate::sizing::{Cron, ScheduleEntry, When, Zone};

/// Longest that a fixed entry may last, milliseconds: as the longest recurring one.
const FIXED_MS_MAX: u64 = 366 * 86_400_000;

/// The entries, in the order of the manifest.
pub(super) fn schedules(
    item: Item<'_>,
    bounds: Bounds,
    network: Option<&Network>,
) -> Result<Vec<ScheduleEntry>, Invalid> {
    let mut names: Vec<String> = Vec::new();
    let mut read = Vec::new();
    for section in item.sections()? {
        read.push(section.and_then(|section| {
            let entry = entry(&section, bounds, network)?;
            if let Some(first) = names.iter().position(|name| *name == entry.name) {
                let message = format!("`{}` is already the name of schedules[{first}]", entry.name);
                return Err(section.complain("name", message, None));
            }
            names.push(entry.name.clone());
            Ok(entry)
        }));
    }
    read.into_iter().collect()
}

fn entry(section: &Section<'_>, bounds: Bounds, network: Option<&Network>) -> Result<ScheduleEntry, Invalid> {
    let name = section.item("name").and_then(Item::text);
    let zone = section.item("time_zone").and_then(|item| {
        item.parse(|text| Zone::try_from(text.to_owned()).map_err(crate::manifest::formats::complaint))
    });
    let when = when(section, zone.as_ref().ok());
    let size =
        |name: &str| section.optional(name).and_then(|item| item.map(Item::integer::<u32>).transpose());
    let (min, max, capacity) = (size("min"), size("max"), size("capacity"));
    let freeze = section.item("freeze").and_then(Item::boolean);
    let (min, max, capacity) = (min?, max?, capacity?);
    let mut fits = Ok(());
    let (least, most) = (min.or(bounds.min), max.or(bounds.max));
    if let (Some(least), Some(most)) = (least, most) {
        if least > most {
            let at = if min.is_some() { "min" } else { "max" };
            let message = format!("its min {least} would be above its max {most}");
            fits = Err(section.complain(at, message, Some("give the entry both `min` and `max`".to_owned())));
        } else if let Some(capacity) = capacity.filter(|capacity| !(least..=most).contains(capacity)) {
            let message = format!("{capacity} is not from {least} to {most}, the limits meanwhile");
            fits = Err(section.complain("capacity", message, None));
        }
    }
    let room = network.map_or(u32::MAX, Network::room);
    if let Some(max) = max.filter(|max| *max > room) {
        let message = format!("is {max}, and `network.pool` has room for {room} instances");
        fits = Err(section.complain("max", message, None));
    }
    let freeze = freeze?;
    if min.or(max).or(capacity).is_none() && !freeze {
        let hint = "give it `min`, `max`, `capacity` or `freeze: true`".to_owned();
        fits = Err(section.complain_here("changes nothing", Some(hint)));
    }
    let when = when?;
    fits?;
    Ok(ScheduleEntry { name: name?, when, time_zone: zone?, min, max, capacity, freeze })
}

fn when(section: &Section<'_>, zone: Option<&Zone>) -> Result<When, Invalid> {
    let needs = |this: &str, other: &str| match section.has(this) && !section.has(other) {
        true => Err(section.complain(this, format!("needs `{other}`"), None)),
        false => Ok(()),
    };
    match (section.has("cron"), section.has("start")) {
        (true, true) => {
            return Err(section.complain("start", "must not be given together with `cron`", None));
        }
        (false, false) => {
            let hint = "for example `cron: 0 8 * * mon-fri` and `duration: 10h`".to_owned();
            return Err(
                section.complain_here("needs `cron` and `duration`, or `start` and `end`", Some(hint))
            );
        }
        (true, false) => needs("cron", "duration").and(needs("end", "start"))?,
        (false, true) => needs("start", "end").and(needs("duration", "cron"))?,
    }
    if section.has("cron") {
        let cron = section.item("cron").and_then(|item| {
            item.parse(|text| Cron::parse(text).map_err(crate::manifest::formats::complaint))
        });
        let duration_ms = section.item("duration").and_then(Item::duration_ms);
        return Ok(When::Recurring { cron: cron?, duration_ms: duration_ms? });
    }
    let text = |name: &str| section.item(name).and_then(Item::text);
    let (start, end) = (text("start"), text("end"));
    let (start, end, zone) = (start?, end?, zone.ok_or(Invalid)?);
    let moment = |name: &str, text: &str| zone.moment(text).map_err(|why| section.complain(name, why, None));
    let (start_ms, end_ms) = (moment("start", &start)?, moment("end", &end)?);
    if end_ms <= start_ms {
        return Err(section.complain("end", "must be after `start`", None));
    }
    if end_ms - start_ms > FIXED_MS_MAX {
        return Err(section.complain("end", "must not be more than 366 days after `start`", None));
    }
    Ok(When::Fixed { start, end, start_ms, end_ms })
}
