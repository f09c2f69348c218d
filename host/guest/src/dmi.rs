//! The seedless way of NoCloud: who a guest is stands in the serial number of its SMBIOS tables.

/// What a serial number says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Serial {
    pub(crate) instance_id: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// Reads `ds=nocloud;i=<instance-id>;h=<hostname>` with its parts in any order; `None` for any other serial number.
pub(crate) fn parse(serial: &str) -> Option<Serial> {
    let mut parts = serial.trim().split(';').map(str::trim);
    if !matches!(parts.next()?, "ds=nocloud" | "ds=nocloud-net") {
        return None;
    }
    let mut found = Serial::default();
    for (key, value) in parts.filter_map(|part| part.split_once('=')).filter(|(_, value)| !value.is_empty()) {
        match key {
            "i" | "instance-id" => found.instance_id = Some(value.to_owned()),
            "h" | "local-hostname" => found.hostname = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serials_of_nocloud_count() {
        let full = Serial { instance_id: Some("web-1-a7".to_owned()), hostname: Some("web-1".to_owned()) };
        assert_eq!(parse("ds=nocloud;i=web-1-a7;h=web-1\n"), Some(full.clone()));
        assert_eq!(parse("ds=nocloud-net; h=web-1; s=http://x/; i=web-1-a7"), Some(full));
        assert_eq!(parse("ds=nocloud;h="), Some(Serial::default()));
        for other in ["", "Not Specified", "i=x;h=y", "ds=ec2;i=x"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
