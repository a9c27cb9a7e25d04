//! Ingress, section 4 steps 8 to 10: what came through a tunnel is delivered without its outer
//! headers. Whether it came through one, `tunnel` decides.

use crate::ecn::Ecn;
use crate::packet::{Port, Sink};
use crate::tunnel::Tunnelled;
use crate::wire::Ip;
use dynencap_abi::Reason;

/// Emits the inner packet, or says why it emitted nothing.
pub(crate) fn decapsulate(tunnelled: &Tunnelled<'_>, sink: &mut impl Sink) -> Result<(), Reason> {
    let Tunnelled {
        outer,
        inner,
        inner_bytes,
        ..
    } = tunnelled;
    let inner_class = inner.traffic_class();
    let arrived = Ecn::of(outer.traffic_class());
    let delivered = Ecn::combined(Ecn::of(inner_class), arrived).ok_or(Reason::EcnDrop)?;
    let class = delivered.within(inner_class);

    let ethertype = inner.ethertype();
    if class == inner_class {
        sink.frame(Port::Delivered, ethertype, &[inner_bytes]);
        return Ok(());
    }
    match inner {
        Ip::V4(ip) => emit(ethertype, &ip.with_class(class), inner_bytes, sink),
        Ip::V6(ip) => emit(ethertype, &ip.with_class(class), inner_bytes, sink),
    }
    Ok(())
}

/// `bytes` with `header` in place of as many of its first bytes.
fn emit(ethertype: u16, header: &[u8], bytes: &[u8], sink: &mut impl Sink) {
    let rest = bytes.get(header.len()..).unwrap_or_default();
    sink.frame(Port::Delivered, ethertype, &[header, rest]);
}
