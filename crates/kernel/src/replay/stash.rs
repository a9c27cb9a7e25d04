//! Frames that had to be captured while sending went on, until a barrier asks for them.

use super::Port;

/// Frames captured before somebody asked for them.
#[derive(Default)]
pub(super) struct Stash {
    bytes: Vec<u8>,
    /// Port, Ethernet type and end in `bytes`.
    frames: Vec<(Port, u16, usize)>,
}

impl Stash {
    pub(super) fn push(&mut self, port: Port, ethertype: u16, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.frames.push((port, ethertype, self.bytes.len()));
    }

    pub(super) fn hand_over(&self, wanted: Port, frame: &mut dyn FnMut(Port, u16, &[u8])) {
        let mut start = 0;
        for &(port, ethertype, end) in &self.frames {
            if port == wanted {
                frame(port, ethertype, &self.bytes[start..end]);
            }
            start = end;
        }
    }
}
