//! TC ingress of the segmenting pair's far end (docs/datapath.md §2, "behind the segmenter"):
//! encapsulates each segment, and sends it on to the uplink with the link-layer header with which
//! it came from there.

use crate::{
    egress::{self, Hook},
    frame::{self, Frame},
    map,
};
use dynencap_abi::{MARK_DONE, MARK_MASK, Reason};

#[inline(always)]
pub(crate) fn run(frame: &mut Frame) -> i32 {
    let reason = egress::encapsulate(frame, Hook::Segmenter);
    let Some(config) = map::config() else {
        return frame::SHOT;
    };
    if reason == Reason::TooBigTold {
        return frame::deliver_at(config.uplink);
    }
    if frame::is_dropped(reason) {
        return frame::SHOT;
    }
    frame.set_mark(frame.mark() & !MARK_MASK | MARK_DONE);
    frame::send_from(config.uplink)
}
