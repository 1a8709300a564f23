//! What a service manager is told, if one started us (`Type=notify`, see sd_notify(3)).

use sd_notify::NotifyState::{self, Ready, Reloading, Status, Stopping, Watchdog};

/// It is attached and serves.
pub fn ready(status: &str) {
    tell(&[Ready, Status(status)]);
}

/// The configuration is read again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[Reloading, now]),
        Err(_) => tell(&[Reloading]),
    }
}

/// It detaches and ends.
pub fn stopping() {
    tell(&[Stopping]);
}

/// It is not stuck. To be told more often than the unit's `WatchdogSec`.
pub fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[Watchdog]);
    }
}

/// It has much to do, and is not stuck: a start or an end may take longer for it.
pub fn busy() {
    const LONGER: u32 = 30_000_000;
    tell(&[NotifyState::ExtendTimeoutUsec(LONGER)]);
    alive();
}

/// A manager that does not listen is no reason to do anything else.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("cannot notify the service manager: {error}");
    }
}
