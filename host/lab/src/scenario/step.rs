//! The steps of a scenario, and how they are written.

use regatta_core::machine::{InstanceAction, UpgradeAction};
use regatta_core::manifest::nearest;
use regatta_core::manifest::units::parse_duration_ms;
use regatta_core::phase::InstanceEvent;
use regatta_core::protection::Protection;
use regatta_core::set_process::SetProcess;

/// Longest time that one step may wait.
const WAIT_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// All steps as they are written, with what they do.
pub const STEPS: [(&str, &str); 21] = [
    ("apply", "applies the manifest in the lines below, indented by four spaces"),
    ("image NAME", "the content of the image from the next apply on"),
    ("policy wants N", "every policy wants N instances, instead of deciding by itself"),
    ("policy fails", "every policy fails"),
    ("policy decides", "every policy decides by itself again"),
    ("metric NAME = VALUE", "what every guest shows from now on"),
    ("connections ID = N", "open connections of an instance"),
    ("generation N fails", "launches of that generation fail; `serves` lets them succeed again"),
    ("unhealthy ID", "an instance's probes fail; `healthy ID` lets them pass"),
    ("kill ID", "an instance's VMM dies"),
    ("scale N", "an operator sets the capacity"),
    ("hold N for TIME", "an operator holds the size; N and `for TIME` may be left out; `resume` ends it"),
    ("limits MIN MAX for TIME", "other limits for a while; `limits clear` ends that"),
    ("freeze TIME", "nothing that serves is removed; `thaw` ends it"),
    (
        "protect ID",
        "protects an instance from scale-in; `protect ID all` from all actions; `unprotect ID` ends that",
    ),
    ("instance ACTION ID", "replace, restart or delete an instance"),
    ("process ACTION NAME", "suspend or resume launch, terminate, health, repair or policy"),
    ("upgrade ACTION", "start, pause, resume, cancel or rollback"),
    ("restart", "the daemon is killed and comes back"),
    ("wait TIME", "ticks for that long, and tells what happens"),
    ("show", "the set now; `why` explains its last tick"),
];

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    Apply(String),
    Image(String),
    Wants(Option<u32>),
    Fails,
    Metric(String, f64),
    Connections(u32, u32),
    Generation(u64, bool),
    Instance(u32, InstanceEvent),
    Scale(u32),
    Hold(Option<u32>, Option<u64>),
    Resume,
    Limits(u32, u32, u64),
    ClearLimits,
    Freeze(u64),
    Thaw,
    Protect(u32, Protection),
    Action(u32, InstanceAction),
    Process(SetProcess, bool),
    Upgrade(UpgradeAction),
    Restart,
    Wait(u64),
    Show,
    Why,
}

impl Step {
    /// Whether lines below belong to it.
    pub(super) fn has_body(command: &str) -> bool {
        command == "apply"
    }

    pub(super) fn read(command: &str, body: String) -> Result<Self, String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().map_err(|_| format!("`{word}` is not a whole number"));
        Ok(match words.as_slice() {
            ["apply"] => Self::Apply(body),
            ["image", name] => Self::Image((*name).to_owned()),
            ["policy", "wants", capacity] => Self::Wants(Some(number(capacity)?)),
            ["policy", "decides"] => Self::Wants(None),
            ["policy", "fails"] => Self::Fails,
            ["metric", name, "=", value] => {
                let value = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
                Self::Metric((*name).to_owned(), value)
            }
            ["connections", id, "=", open] => Self::Connections(number(id)?, number(open)?),
            ["generation", generation, "fails"] => Self::Generation(number(generation)?.into(), true),
            ["generation", generation, "serves"] => Self::Generation(number(generation)?.into(), false),
            ["unhealthy", id] => Self::Instance(number(id)?, InstanceEvent::BecameUnhealthy),
            ["healthy", id] => Self::Instance(number(id)?, InstanceEvent::BecameHealthy),
            ["kill", id] => Self::Instance(number(id)?, InstanceEvent::VmmExited),
            ["scale", capacity] => Self::Scale(number(capacity)?),
            ["hold"] => Self::Hold(None, None),
            ["hold", "for", time] => Self::Hold(None, Some(duration(time)?)),
            ["hold", capacity] => Self::Hold(Some(number(capacity)?), None),
            ["hold", capacity, "for", time] => Self::Hold(Some(number(capacity)?), Some(duration(time)?)),
            ["resume"] => Self::Resume,
            ["limits", "clear"] => Self::ClearLimits,
            ["limits", min, max, "for", time] => Self::Limits(number(min)?, number(max)?, duration(time)?),
            ["freeze", time] => Self::Freeze(duration(time)?),
            ["thaw"] => Self::Thaw,
            ["protect", id] => Self::Protect(number(id)?, Protection::ScaleIn),
            ["protect", id, "all"] => Self::Protect(number(id)?, Protection::All),
            ["unprotect", id] => Self::Protect(number(id)?, Protection::None),
            ["instance", "replace", id] => Self::Action(number(id)?, InstanceAction::Replace),
            ["instance", "restart", id] => Self::Action(number(id)?, InstanceAction::Restart),
            ["instance", "delete", id] => Self::Action(number(id)?, InstanceAction::Delete { shrink: false }),
            ["process", "suspend", name] => Self::Process(process(name)?, true),
            ["process", "resume", name] => Self::Process(process(name)?, false),
            ["upgrade", action] => Self::Upgrade(match *action {
                "start" => UpgradeAction::Start,
                "pause" => UpgradeAction::Pause,
                "resume" => UpgradeAction::Resume,
                "cancel" => UpgradeAction::Cancel,
                "rollback" => UpgradeAction::RollBack,
                other => return Err(format!("`{other}` is nothing that an upgrade can do")),
            }),
            ["restart"] => Self::Restart,
            ["wait", time] => {
                let ms = duration(time)?;
                Self::Wait(if ms <= WAIT_MS_MAX { ms } else { return Err("wait at most 7d".to_owned()) })
            }
            ["show"] => Self::Show,
            ["why"] => Self::Why,
            _ => return Err(unknown(&words)),
        })
    }
}

fn duration(text: &str) -> Result<u64, String> {
    parse_duration_ms(text).map_err(|error| format!("`{text}` is no time: {error}"))
}

fn process(name: &str) -> Result<SetProcess, String> {
    let known = SetProcess::ALL.into_iter().find(|process| process.as_str() == name);
    known.ok_or_else(|| {
        format!("`{name}` is no process; there are {}", SetProcess::ALL.map(SetProcess::as_str).join(", "))
    })
}

fn unknown(words: &[&str]) -> String {
    let first = words.first().copied().unwrap_or_default();
    let known = STEPS.iter().filter_map(|(step, _)| step.split(' ').next());
    let near = nearest(first, known.clone());
    let of_first: Vec<&str> =
        STEPS.iter().map(|(step, _)| *step).filter(|step| step.split(' ').next() == Some(first)).collect();
    match (of_first.is_empty(), near) {
        (false, _) => format!("`{}` is not a step; there is `{}`", words.join(" "), of_first.join("`, `")),
        (true, Some(near)) => format!("`{first}` is not a step; did you mean `{near}`?"),
        (true, None) => {
            let all: Vec<&str> = known.collect();
            format!("`{first}` is not a step; there are {}", all.join(", "))
        }
    }
}
