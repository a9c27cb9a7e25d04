//! The program alone: nanoseconds a run, less those of an empty program in the same round.

use crate::{
    Error, Row, Run,
    bed::Headroom,
    ours::Shape,
    reference::Expected,
    sample::Samples,
    stand::{Flow, Stand},
};
use dynencap_abi::Config;
use dynencap_kernel::Chain;

/// Packets a slice: about 10 ms.
const PACKETS: usize = 4096;

struct Variant {
    name: String,
    stand: usize,
    flow: Flow,
    /// The empty program's variant.
    floor: usize,
}

/// Measures it.
pub fn measure(run: &Run) -> Result<Vec<Row>, Error> {
    let mut stands = Vec::new();
    let mut variants = Vec::new();
    for headroom in [Headroom::None, Headroom::Device] {
        build(run, headroom, &mut stands, &mut variants)?;
    }
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime);
    let _statistics = statistics.map_err(Error::reference("BPF_ENABLE_STATS"))?;
    let samples = Samples::take(variants.len(), run.rounds(40), &run.interrupt, |number| {
        let Variant {
            name, stand, flow, ..
        } = &mut variants[number];
        stands[*stand].run_time(name, flow, PACKETS)
    })?;
    let rows = variants.iter().enumerate().map(|(number, variant)| {
        let summary = if variant.floor == number {
            samples.summary(number)
        } else {
            samples.less(number, variant.floor)
        };
        Row::new("egress", &variant.name, "ns", summary)
    });
    Ok(rows.collect())
}

fn build(
    run: &Run,
    headroom: Headroom,
    stands: &mut Vec<Stand>,
    variants: &mut Vec<Variant>,
) -> Result<(), Error> {
    let suffix = match headroom {
        Headroom::None => "",
        Headroom::Device => ", headroom",
    };
    let floor = variants.len();
    let mut add = |stand, name: &str, flow| {
        variants.push(Variant {
            name: format!("{name}{suffix}"),
            stand,
            flow,
            floor,
        });
    };
    let references = [
        ("empty", "empty program", Expected::PLAIN),
        ("hand_ip6", "C with lookup, IPv6", Expected::IP6),
        ("hand_udp", "C with lookup, IPv6, UDP + 8", Expected::UDP8),
        ("static_ip6", "C static, IPv6", Expected::IP6),
        ("static_udp", "C static, IPv6, UDP + 8", Expected::UDP8),
    ];
    for (program, name, expected) in references {
        let mut stand = Stand::reference(headroom, Chain::here(), program)?;
        let flow = stand.flow_as(expected, &run.home)?;
        add(stands.len(), name, flow);
        stands.push(stand);
    }
    let stand = Stand::reference(headroom, Chain::here(), "lookup")?;
    add(stands.len(), "C lookup alone, miss", stand.flow(&run.home)?);
    add(
        stands.len(),
        "C lookup alone, no socket",
        stand.forwarded()?,
    );
    stands.push(stand);
    for object in &run.objects {
        let stand = Stand::ours(headroom, Chain::here(), &object.bytes, 0, &run.home)?;
        for shape in [Shape::Ip6, Shape::Udp8, Shape::Ip4, Shape::Udp32] {
            let flow = stand.flow_to(shape, &run.home)?;
            add(
                stands.len(),
                &format!("{}, {}", object.name, shape.name()),
                flow,
            );
        }
        let flow = stand.flow(&run.home)?;
        add(stands.len(), &format!("{}, miss", object.name), flow);
        let flow = stand.forwarded()?;
        add(stands.len(), &format!("{}, no socket", object.name), flow);
        stands.push(stand);
        let flags = Config::UDP_CHECKSUM;
        let stand = Stand::ours(headroom, Chain::here(), &object.bytes, flags, &run.home)?;
        let flow = stand.flow_to(Shape::Checksum, &run.home)?;
        add(
            stands.len(),
            &format!("{}, {}", object.name, Shape::Checksum.name()),
            flow,
        );
        stands.push(stand);
    }
    Ok(())
}
