//! What a guest read, wrote, sent and received.

use serde_json::Value;

use crate::vmm::Counters;

/// From QEMU's statistics of one disk.
pub(super) fn disk_counters(stats: &Value) -> Counters {
    let get = |name: &str| stats[name].as_u64().unwrap_or(0);
    Counters {
        read_bytes: get("rd_bytes"),
        read_ops: get("rd_operations"),
        read_time_ns: Some(get("rd_total_time_ns")),
        write_bytes: get("wr_bytes"),
        write_ops: get("wr_operations"),
        write_time_ns: Some(get("wr_total_time_ns")),
        ..Counters::default()
    }
}

/// The line of a tap in `/proc/net/dev`. What the host's side sends is what the guest receives.
pub(super) fn net_counters(table: &str, tap: &str) -> Option<Counters> {
    let fields = table.lines().find_map(|line| line.trim_start().strip_prefix(tap)?.strip_prefix(':'))?;
    let fields: Vec<u64> = fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some(Counters {
        tx_bytes: *fields.first()?,
        tx_frames: *fields.get(1)?,
        rx_bytes: *fields.get(8)?,
        rx_frames: *fields.get(9)?,
        ..Counters::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counters_are_the_guests_view() {
        let table = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                     tap0x: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  tap0:  100  2 0 0 0 0 0 0  300  4 0 0 0 0 0 0\n";
        let found = net_counters(table, "tap0").unwrap();
        assert_eq!((found.tx_bytes, found.tx_frames, found.rx_bytes, found.rx_frames), (100, 2, 300, 4));
        assert_eq!(net_counters(table, "tap1"), None);
        let disk = disk_counters(&json!({"rd_bytes": 512, "rd_operations": 1, "rd_total_time_ns": 7000}));
        assert_eq!((disk.read_bytes, disk.read_ops, disk.read_time_ns), (512, 1, Some(7000)));
    }
}
