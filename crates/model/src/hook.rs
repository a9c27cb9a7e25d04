//! Where the data path attaches (T7): to routes, as a lightweight tunnel (LWT), or to the
//! queueing discipline (TC), and what a program can do there.
//!
//! Both run before software segmentation, so both meet super-packets. They differ in the
//! helpers that the kernel offers (`lwt_xmit_func_proto` and `tc_cls_act_func_proto` in
//! `net/core/filter.c`). TC was chosen for these.

/// The hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// `BPF_PROG_TYPE_LWT_XMIT` on a route.
    Lwt,
    /// `BPF_PROG_TYPE_SCHED_CLS` at egress of a device.
    #[default]
    Tc,
}

/// What the data path needs of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The packet's bytes and its mark.
    Packet,
    /// Maps by a key of the packet, such as its flow.
    Maps,
    /// The packet whole, before software segmentation.
    SuperPacket,
    /// Room for headers in front: `bpf_lwt_push_encap` here, `bpf_skb_adjust_room` there.
    Push,
    /// `bpf_sk_storage_get`: the exit of the packet's own socket, a listener's too.
    SocketStorage,
    /// `bpf_sk_lookup_tcp`: the exit of the socket behind a reply of the kernel's own.
    SocketLookup,
    /// Everything that leaves by the device, whatever its route.
    EveryPacket,
}

impl Hook {
    /// Whether the hook has it.
    #[must_use]
    pub fn offers(self, need: Need) -> bool {
        match need {
            Need::Packet | Need::Maps | Need::SuperPacket | Need::Push => true,
            Need::SocketStorage | Need::SocketLookup | Need::EveryPacket => self == Self::Tc,
        }
    }
}
