//! TC ingress of the lab: shows what was delivered, by sending it out of a device on which it
//! can be captured.

use crate::{frame, map};
use dynencap_abi::Reason;

#[inline(always)]
pub(crate) fn run() -> i32 {
    match map::lab_device() {
        Some(device) => frame::send_from(device),
        None => frame::verdict(Reason::NotTunnel),
    }
}
