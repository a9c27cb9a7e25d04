//! TC ingress of the lab: shows what was delivered, by sending it out of a device on which it
//! can be captured.

use crate::map;
use aya_ebpf::helpers::generated::bpf_redirect;
use dynencap_abi::Reason;

#[inline(always)]
pub(crate) fn run() -> i32 {
    match map::lab_device() {
        // SAFETY: takes any device index.
        Some(device) => unsafe { bpf_redirect(device, 0) as i32 },
        None => crate::frame::verdict(Reason::NotTunnel),
    }
}
