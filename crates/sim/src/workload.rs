//! A trace to measure with: packets of every size from many flows, both IP versions, TCP and
//! UDP, each of which leaves through an exit. The same for the same number, everywhere.

use crate::trace::{LinkType, Packet, PcapWriter, Resolution, Timestamp, WriteError};
use std::io::Write;

/// How many flows take turns.
pub const FLOWS: u32 = 1_000;

/// From the IP header on: a third are acknowledgements, none needs segmenting at an MTU of
/// 1500. On average 504 bytes, 534 in the file.
const LENGTHS: [usize; 9] = [64, 64, 64, 256, 256, 576, 576, 1280, 1400];
const ETHERNET_LEN: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of 2001:db8::1, which stands in front of all.
const PREFIX: [u8; 4] = [0x20, 1, 0x0d, 0xb8];

/// Writes a pcap file with this many packets, a microsecond apart.
///
/// # Errors
/// As writing.
pub fn write(packets: u32, output: impl Write) -> Result<(), WriteError> {
    let mut writer = PcapWriter::new(output, LinkType::Ethernet, Resolution::Nanosecond)?;
    let mut frame = Vec::new();
    // Knuth's, so that sizes and flows do not move in step.
    let mut random = 1u64;
    for number in 0..packets {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let length = LENGTHS[(random >> 33) as usize % LENGTHS.len()];
        let flow = number.wrapping_mul(7_919) % FLOWS;
        frame.clear();
        build(flow, length, number, &mut frame);
        writer.write(&Packet {
            time: Timestamp(1_700_000_000_000_000_000 + u64::from(number) * 1_000),
            link_type: LinkType::Ethernet,
            bytes: &frame,
            original_len: frame.len() as u32,
            comment: None,
        })?;
    }
    Ok(writer.into_inner().flush()?)
}

fn build(flow: u32, length: usize, number: u32, frame: &mut Vec<u8>) {
    let protocol = if flow.is_multiple_of(3) { UDP } else { TCP };
    let [.., high, low] = (1024 + flow).to_be_bytes();
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    let mut transport_len = length - 40;
    if flow.is_multiple_of(4) {
        transport_len = length - 20;
        let [.., total_high, total_low] = length.to_be_bytes();
        frame.extend([8, 0, 0x45, 0, total_high, total_low, 0, 0, 0x40, 0]);
        frame.extend([64, protocol, 0, 0, 10, 0, high, low, 10, 1, 0, 1]);
    } else {
        let [.., payload_high, payload_low] = transport_len.to_be_bytes();
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, payload_high, payload_low]);
        frame.extend([protocol, 64]);
        for last in [[high, low], [0, 1]] {
            frame.extend(PREFIX);
            frame.extend([0; 10]);
            frame.extend(last);
        }
    }
    frame.extend([high, low, 1, 0xbb]);
    if protocol == TCP {
        frame.extend(number.to_be_bytes());
        frame.extend([0, 0, 0, 1, 0x50, 0x18, 1, 0xf4, 0, 0, 0, 0]);
    } else {
        let [.., udp_high, udp_low] = transport_len.to_be_bytes();
        frame.extend([udp_high, udp_low, 0, 0]);
    }
    frame.resize(ETHERNET_LEN + length, b'd');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{self, Attribution, EngineKind};
    use crate::replay::Replay;
    use crate::scenario::Scenario;
    use crate::trace::Reading;
    use std::num::NonZeroUsize;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn every_packet_is_encapsulated() {
        let mut trace = Vec::new();
        write(5_000, &mut trace).unwrap();
        let scenario = Scenario::default();
        let engine = engine::start(
            EngineKind::Model,
            &scenario.host,
            &[],
            Attribution::PerEvent,
        );
        let mut replay = Replay::new(scenario, vec![engine.unwrap()]);
        let (chunks, never) = (Reading(&trace[..]), AtomicBool::new(false));
        replay
            .trace("memory", chunks, NonZeroUsize::MIN, &never, &mut ())
            .unwrap();
        let report = replay.report("memory");
        assert_eq!(report.flows, u64::from(FLOWS));
        let totals = &report.engines[0].totals;
        assert_eq!(totals.encapsulated, 5_000, "{totals:?}");
    }
}
