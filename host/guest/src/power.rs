//! Ways out: power button, power-off, reset, panic.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount_remount};
use rustix::system::{RebootCommand, reboot};

use crate::init::ROOT;

/// An input event: two words of time, then type, code and value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Watches all input devices for the power button; `pressed` is called once per press, by any of several threads.
pub(crate) fn watch(pressed: impl Fn() + Clone + Send + 'static) {
    let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let devices: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .map(|entry| entry.path())
        .collect();
    if devices.is_empty() {
        println!("regatta-guest: no input device: the power button is not heard");
    }
    for device in devices {
        let pressed = pressed.clone();
        thread::spawn(move || {
            let Ok(mut file) = File::open(&device) else { return };
            let mut event = [0; EVENT_BYTES];
            while file.read_exact(&mut event).is_ok() {
                if is_power_key(&event) {
                    pressed();
                }
            }
        });
    }
}

/// Whether this is the press of a power key.
fn is_power_key(event: &[u8; EVENT_BYTES]) -> bool {
    let word = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    let pressed = event[20..] == 1i32.to_ne_bytes();
    word(16) == EV_KEY && word(18) == KEY_POWER && pressed
}

/// Powers off.
pub(crate) fn off() -> Result<Infallible> {
    println!("regatta-guest: powering off");
    settle();
    reboot(RebootCommand::PowerOff).context("cannot power off")?;
    anyhow::bail!("the machine is still on")
}

/// Resets the machine.
pub(crate) fn reset() -> Result<Infallible> {
    println!("regatta-guest: restarting");
    settle();
    reboot(RebootCommand::Restart).context("cannot restart")?;
    anyhow::bail!("the machine did not restart")
}

/// Makes the kernel panic.
pub(crate) fn panic() -> Result<Infallible> {
    println!("regatta-guest: asking for a kernel panic");
    fs::write("/proc/sysrq-trigger", "c").context("cannot make the kernel panic")?;
    anyhow::bail!("the kernel did not panic")
}

/// Writes everything out. The program runs from the disk, so it cannot be unmounted, but it can be read-only.
fn settle() {
    rustix::fs::sync();
    // Without a root disk there is nothing to make read-only.
    let _ = mount_remount(ROOT, MountFlags::RDONLY, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut event = [7; EVENT_BYTES];
            event[16..18].copy_from_slice(&kind.to_ne_bytes());
            event[18..20].copy_from_slice(&code.to_ne_bytes());
            event[20..].copy_from_slice(&value.to_ne_bytes());
            event
        };
        assert!(is_power_key(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_power_key(&event(EV_KEY, KEY_POWER, 0)), "the release");
        assert!(!is_power_key(&event(0, 0, 0)), "the end of a report");
        assert!(!is_power_key(&event(EV_KEY, 30, 1)));
    }
}
