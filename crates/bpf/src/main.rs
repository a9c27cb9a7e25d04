//! The BPF programs: entry points, and the licence by which the kernel lends GPL-only helpers.
//!
//! One module per hook (`set_option`, `get_option`, `egress`, `ingress`, `lab_deliver`), and
//! what they share: `frame`, `call` and `storage` hold all unsafe code; `map` the maps. The
//! behaviour is that of docs/datapath.md; layouts and constants come from `dynencap-abi`.
//!
//! On the host (`cargo test`) only the pure part, the flow hash, is exercised.

#![cfg_attr(not(test), no_std, no_main)]
#![cfg_attr(test, allow(dead_code, unused_imports))]

mod call;
mod egress;
mod flow;
mod frame;
mod get_option;
mod ingress;
mod lab_deliver;
mod map;
mod outer;
mod set_option;
mod storage;
mod transport;

#[cfg(not(test))]
mod entry {
    use crate::{call::Call, egress, frame::Frame, get_option, ingress, lab_deliver, set_option};
    use aya_ebpf::{
        macros::{cgroup_sockopt, classifier},
        programs::{SockoptContext, TcContext},
    };

    #[cgroup_sockopt(setsockopt)]
    pub(crate) fn set_option(ctx: SockoptContext) -> i32 {
        set_option::run(&Call::new(&ctx))
    }

    #[cgroup_sockopt(getsockopt)]
    pub(crate) fn get_option(ctx: SockoptContext) -> i32 {
        get_option::run(&Call::new(&ctx))
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
