//! What texts of a manifest may look like.

use std::net::{IpAddr, SocketAddr};

use super::problem::quote;
use crate::sizing::{Cron, Zone};

mod host;

pub(crate) use self::host::{address, destination, host_address, ipv4_network};
use self::host::{disk_name, interface, ssh_key, url, user_data};

/// Metrics that the host measures itself; a manifest must not define them.
pub const BUILT_IN_METRICS: &[&str] =
    &["connection_rate", "connections", "connections_waiting", "cpu", "memory", "request_rate", "requests"];

/// Longest kernel command line that a manifest may give, in bytes. x86 kernels
/// take 2,048; the host appends the address.
const MAX_CMDLINE_BYTES: usize = 1_800;
/// Longest path, in bytes: Linux's `PATH_MAX` with its NUL.
const MAX_PATH_BYTES: usize = 4_095;

/// What is wrong with a text, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

fn complain<T>(message: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { message: message.into(), hint: None })
}

/// A complaint without a hint.
pub(crate) fn complaint(message: String) -> Complaint {
    Complaint { message, hint: None }
}

fn complain_with<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { message: message.into(), hint: Some(hint.into()) })
}

/// The format of a text field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Name,
    MetricName,
    /// The name of a metric that is defined elsewhere.
    WantedMetric,
    SeriesName,
    Path,
    Module,
    Cmdline,
    Sha256,
    HttpPath,
    Ipv4Network,
    HostAddress,
    Destination,
    Address,
    Interface,
    DiskName,
    UserData,
    SshKey,
    Url,
    Listen,
    Cron,
    TimeZone,
    Moment,
}

impl Format {
    /// What it is, within a sentence.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Name | Self::MetricName | Self::WantedMetric | Self::SeriesName => "a name",
            Self::Path => "a path",
            Self::Module => "the name of a policy or the path of a `.wasm` file",
            Self::Cmdline => "a kernel command line",
            Self::Sha256 => "a SHA-256 digest",
            Self::Cron => "a cron expression such as `0 8 * * mon-fri`",
            Self::TimeZone => "a time zone such as `Europe/Berlin`",
            Self::Moment => "a time such as `2026-12-24T08:00`",
            Self::HttpPath => "a path such as `/healthz`",
            Self::Ipv4Network => "a network such as `10.213.0.0/16`",
            Self::HostAddress => "an address with its prefix length, such as `10.9.0.1/24`",
            Self::Destination => "a network such as `10.0.0.0/8`",
            Self::Address => "an IPv4 address",
            Self::Interface => "the name of a network interface",
            Self::DiskName => "the name of a disk",
            Self::UserData => "a text",
            Self::SshKey => "a public SSH key",
            Self::Url => "a URL such as `http://10.88.0.1/seed/`",
            Self::Listen => "an address such as `0.0.0.0:80`",
        }
    }

    /// A regular expression (ECMA 262) that holds for every text of the format;
    /// the reader may be stricter.
    pub(crate) fn pattern(self) -> &'static str {
        match self {
            Self::Name => "^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$",
            Self::MetricName | Self::WantedMetric => "^[a-z][a-z0-9_]{0,63}$",
            Self::SeriesName => "^[a-zA-Z_:][a-zA-Z0-9_:]{0,199}$",
            Self::Path | Self::Module => "^[^\\u0000-\\u001f\\u007f]+$",
            Self::Cmdline => "^[^\\u0000-\\u001f\\u007f]*$",
            Self::Sha256 => "^[0-9a-fA-F]{64}$",
            Self::Cron => "^\\s*\\S+(\\s+\\S+){4}\\s*$",
            Self::TimeZone => "^[A-Za-z][A-Za-z0-9/_+-]*$",
            Self::Moment => "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+$",
            Self::HttpPath => "^/[!-~]*$",
            Self::Ipv4Network | Self::HostAddress | Self::Destination => {
                "^[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+/[0-9]+$"
            }
            Self::Address => "^[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+$",
            Self::Interface => "^[^/\\s:]{1,15}$",
            Self::DiskName => "^[a-z][a-z0-9-]{0,19}$",
            Self::UserData => "^[^\\u0000]*$",
            Self::SshKey => "^[a-z][a-zA-Z0-9@.-]* [A-Za-z0-9+/=]+( .*)?$",
            Self::Url => "^https?://[!-~]+/$",
            Self::Listen => "^(\\[[0-9a-fA-F:.]+\\]|[0-9.]+):[0-9]+$",
        }
    }

    /// Checks a text.
    pub(crate) fn check(self, text: &str) -> Result<(), Complaint> {
        match self {
            Self::Name => name(text),
            Self::MetricName => metric_name(text),
            Self::WantedMetric => wanted_metric(text),
            Self::SeriesName => series_name(text),
            Self::Path => path(text),
            Self::Module => module(text),
            Self::Cmdline => cmdline(text),
            Self::Sha256 => sha256(text),
            Self::Cron => Cron::parse(text).map(drop).or_else(complain),
            Self::TimeZone => Zone::try_from(text.to_owned()).map(drop).or_else(complain),
            // Which moment a local time is depends on the zone beside it.
            Self::Moment => Zone::default().moment(text).map(drop).or_else(complain),
            Self::HttpPath => http_path(text),
            Self::Ipv4Network => ipv4_network(text).map(drop),
            Self::HostAddress => host_address(text).map(drop),
            Self::Destination => destination(text).map(drop),
            Self::Address => address(text).map(drop),
            Self::Interface => interface(text),
            Self::DiskName => disk_name(text),
            Self::UserData => user_data(text),
            Self::SshKey => ssh_key(text),
            Self::Url => url(text),
            Self::Listen => listen(text).map(drop),
        }
    }
}

/// What keeps a text from being the name of a set or of a golden image: a
/// lower-case fragment, with what to do about it.
#[must_use]
pub fn name_problem(text: &str) -> Option<String> {
    name(text).err().map(Complaint::in_one)
}

/// What keeps a text from being a kernel command line; likewise.
#[must_use]
pub fn cmdline_problem(text: &str) -> Option<String> {
    cmdline(text).err().map(Complaint::in_one)
}

impl Complaint {
    fn in_one(self) -> String {
        match self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message,
        }
    }
}

/// A word of lower-case letters, digits and `separator` that starts with a letter.
fn lower_case_word(text: &str, separator: char, example: &str) -> Result<(), Complaint> {
    let hint = format!("lower-case letters, digits and `{separator}`, for example `{example}`");
    if text.is_empty() {
        return complain_with("must not be empty", hint);
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == separator;
    if let Some(c) = text.chars().find(|&c| !legal(c)) {
        return complain_with(format!("must not contain {}", quote(&c.to_string())), hint);
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return complain_with("must start with a letter", hint);
    }
    Ok(())
}

fn not_longer_than(text: &str, characters: usize) -> Result<(), Complaint> {
    match text.len() {
        len if len > characters => {
            complain(format!("must not be longer than {characters} characters, has {len}"))
        }
        _ => Ok(()),
    }
}

fn name(text: &str) -> Result<(), Complaint> {
    lower_case_word(text, '-', "web-1")?;
    if text.ends_with('-') {
        let hint = "lower-case letters, digits and `-`, for example `web-1`";
        return complain_with("must not end with `-`", hint);
    }
    not_longer_than(text, 32)
}

fn wanted_metric(text: &str) -> Result<(), Complaint> {
    lower_case_word(text, '_', "queue_depth")?;
    not_longer_than(text, 64)
}

fn metric_name(text: &str) -> Result<(), Complaint> {
    wanted_metric(text)?;
    if BUILT_IN_METRICS.contains(&text) {
        let hint = format!("built in are {}; give yours another name", list(BUILT_IN_METRICS));
        return complain_with(format!("`{text}` is the name of a built-in metric"), hint);
    }
    Ok(())
}

fn series_name(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return complain("must not be empty");
    }
    if text.contains('{') {
        return complain_with("must be the name of a series without labels", "the part before `{`");
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    if let Some(c) = text.chars().find(|&c| !legal(c)) {
        return complain(format!("must not contain {}", quote(&c.to_string())));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return complain("must not start with a digit");
    }
    if text.len() > 200 {
        return complain(format!("must not be longer than 200 characters, has {}", text.len()));
    }
    Ok(())
}

fn path(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return complain("must not be empty");
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return complain(format!("must not contain the control character {}", quote(&c.to_string())));
    }
    if text.ends_with('/') {
        return complain("must be a file, not a directory");
    }
    if text.len() > MAX_PATH_BYTES {
        return complain(format!("must not be longer than {MAX_PATH_BYTES} bytes, has {}", text.len()));
    }
    if text.starts_with("~/") {
        return complain_with("`~` is not expanded", "write the path from `/`, or relative to the manifest");
    }
    Ok(())
}

/// Whether `policy.module` is a path and not a name.
pub(crate) fn module_is_path(text: &str) -> bool {
    text.contains('/') || text.ends_with(".wasm")
}

fn module(text: &str) -> Result<(), Complaint> {
    if module_is_path(text) {
        return path(text);
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(legal) {
        return complain_with(
            format!("{} is neither the name of a policy nor a path", quote(text)),
            "a name such as `target-tracking`, or a path such as `./policy.wasm`",
        );
    }
    Ok(())
}

fn cmdline(text: &str) -> Result<(), Complaint> {
    if text.contains(['\n', '\r']) {
        return complain_with("must be one line", "in YAML, `>-` folds lines into one");
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return complain(format!("must not contain the control character {}", quote(&c.to_string())));
    }
    if text.len() > MAX_CMDLINE_BYTES {
        return complain(format!("must not be longer than {MAX_CMDLINE_BYTES} bytes, has {}", text.len()));
    }
    if text.split_whitespace().any(|word| word == "--") {
        return complain_with("must not contain `--`", "what the host appends would go to init");
    }
    if text.split_whitespace().any(|word| word.starts_with("ip=")) {
        return complain_with("must not contain `ip=`", "the host gives every instance its address");
    }
    Ok(())
}

fn sha256(text: &str) -> Result<(), Complaint> {
    let hint = "64 hex digits, as `sha256sum` prints them";
    if let Some(rest) = text.strip_prefix("sha256:") {
        return complain_with("must not have a prefix", format!("only the digits: {}", quote(rest)));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return complain_with(format!("must not contain {}", quote(&c.to_string())), hint);
    }
    if text.len() != 64 {
        return complain_with(format!("has {} digits instead of 64", text.len()), hint);
    }
    Ok(())
}

fn http_path(text: &str) -> Result<(), Complaint> {
    if !text.starts_with('/') {
        let hint = format!(
            "for example `/{}`",
            text.chars().filter(char::is_ascii_graphic).take(40).collect::<String>()
        );
        return complain_with("must start with `/`", hint);
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return complain_with(
            format!("must not contain {}", quote(&c.to_string())),
            "other characters are written as `%XX`",
        );
    }
    if text.contains('#') {
        return complain("must not contain `#`");
    }
    if text.len() > 1_024 {
        return complain(format!("must not be longer than 1024 bytes, has {}", text.len()));
    }
    Ok(())
}

/// Reads the address of a listener.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, Complaint> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let port = if port.is_empty() { "80" } else { port };
        let hint = match host {
            "" | "*" => format!("all addresses of the host: `0.0.0.0:{port}`"),
            "localhost" => format!("this host only: `127.0.0.1:{port}`"),
            _ if text.parse::<IpAddr>().is_ok() => {
                "a port is missing, for example `:80` at the end".to_owned()
            }
            _ => "an IP address and a port, for example `0.0.0.0:80` or `[::]:80`".to_owned(),
        };
        return complain_with(format!("{} is not an address with a port", quote(text)), hint);
    };
    if address.port() == 0 {
        return complain_with("the port must not be 0", "clients must know where to connect");
    }
    Ok(address)
}

/// Words as a list within a sentence.
pub(crate) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
