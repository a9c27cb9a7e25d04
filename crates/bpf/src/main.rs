//! The BPF programs: entry points, and the licence by which the kernel lends GPL-only helpers.
//!
//! One module per hook (`set_option`, `get_option`, `create`, `track`, `reflect`, `egress`, `ingress`,
//! `lab_deliver`), and what they share. Unsafe code stands where a context, a map's value or a
//! packet is touched, behind types that the rest can use safely; `map` has the maps. The behaviour is that of docs/datapath.md; layouts and constants come from `dynencap-abi`.
//!
//! On the host (`cargo test`) only the pure part, the flow hash, is exercised.

#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code, unused_imports))]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "atomic additions")
)]

mod allowed;
mod call;
mod capture;
mod checksum;
mod closing;
mod create;
mod custom;
mod egress;
mod exit;
mod flow;
mod frame;
mod get_option;
mod ingress;
mod inside;
mod kernels;
mod lab_deliver;
mod learn;
mod lookup;
mod map;
mod mark;
mod outer;
mod packet;
mod passive;
mod path;
mod plain;
mod policy;
mod reflect;
mod reflected;
mod segmented;
mod set_option;
mod socket;
mod stage;
mod staged;
mod storage;
mod tell;
mod track;
mod transport;
mod whose;

#[cfg(not(test))]
mod entry {
    use crate::{
        call::Call,
        create, egress,
        frame::{Arrived, Frame},
        get_option, ingress, lab_deliver, reflect, segmented, set_option, track,
    };
    use aya_ebpf::{
        macros::{cgroup_skb, cgroup_sock, cgroup_sockopt, classifier, sock_ops},
        programs::{SkBuffContext, SockContext, SockOpsContext, SockoptContext, TcContext},
    };

    #[cgroup_sockopt(setsockopt)]
    pub(crate) fn set_option(ctx: SockoptContext) -> i32 {
        set_option::run(&Call::new(&ctx))
    }

    #[cgroup_sockopt(getsockopt)]
    pub(crate) fn get_option(ctx: SockoptContext) -> i32 {
        get_option::run(&Call::new(&ctx))
    }

    #[cgroup_sock(sock_create)]
    pub(crate) fn socket_create(ctx: SockContext) -> i32 {
        create::run(&create::NewSocket::new(&ctx))
    }

    #[sock_ops]
    pub(crate) fn track(ctx: SockOpsContext) -> u32 {
        track::run(&track::Connection::new(&ctx))
    }

    #[cgroup_skb(ingress)]
    pub(crate) fn reflect(ctx: SkBuffContext) -> i32 {
        reflect::run(&mut Arrived::arrived(&ctx))
    }

    #[classifier]
    pub(crate) fn egress(ctx: TcContext) -> i32 {
        egress::run(&mut Frame::new(&ctx))
    }

    #[classifier]
    pub(crate) fn ingress(ctx: TcContext) -> i32 {
        ingress::run(&mut Frame::new(&ctx))
    }

    #[classifier]
    pub(crate) fn segmented(ctx: TcContext) -> i32 {
        segmented::run(&mut Frame::new(&ctx))
    }

    #[classifier]
    pub(crate) fn lab_deliver(_: TcContext) -> i32 {
        lab_deliver::run()
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
