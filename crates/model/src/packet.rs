//! What goes into the model and what comes out: a packet, and a sink for frames.
//! Reading headers is left to `wire`.

/// A frame from its IP header on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The frame's protocol, in host byte order.
    pub ethertype: u16,
    /// Everything behind the Ethernet header.
    pub bytes: &'a [u8],
    /// Transport payload bytes per segment; 0: not a super-packet.
    pub gso_size: u16,
}

/// Where a frame comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// The uplink.
    Wire,
    /// The far end of the segmenting pair, where [`crate::Host::segmented`] takes it.
    Segmenter,
    /// This host's own stack: what came in, or an ICMP error to a sender of this host.
    Delivered,
}

/// Receives each frame as parts that follow one another on the wire: headers that the model
/// wrote, and slices of the packet that it was given.
pub trait Sink {
    /// One frame.
    fn frame(&mut self, port: Port, ethertype: u16, parts: &[&[u8]]);
}

/// A frame in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it came out.
    pub port: Port,
    /// The frame's protocol, in host byte order.
    pub ethertype: u16,
    /// Everything behind the Ethernet header.
    pub bytes: Vec<u8>,
}

impl Sink for Vec<Frame> {
    fn frame(&mut self, port: Port, ethertype: u16, parts: &[&[u8]]) {
        self.push(Frame {
            port,
            ethertype,
            bytes: parts.concat(),
        });
    }
}
