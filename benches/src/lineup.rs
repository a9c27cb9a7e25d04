//! Everything that is measured together: stands, and the variants that send through them.

use crate::{
    Error, Run,
    bed::Headroom,
    ours::Shape,
    peer::Peer,
    reference::Expected,
    stand::{Flow, Stand},
};
use dynencap_abi::Config;
use dynencap_kernel::Chain;

/// A flow through a stand, under a name.
pub struct Variant {
    /// As in tables.
    pub name: String,
    stand: usize,
    flow: Flow,
    /// The variant that it is compared with.
    pub base: usize,
}

/// The variants, in the order in which tables show them.
#[derive(Default)]
pub struct Lineup {
    stands: Vec<Stand>,
    variants: Vec<Variant>,
    base: usize,
    suffix: &'static str,
}

/// Programs of the reference that encapsulate: name in the object, name in tables, result.
const BY_HAND: [(&str, &str, Expected); 4] = [
    ("static_ip6", "C static, IPv6", Expected::IP6),
    ("static_udp", "C static, IPv6, UDP + 8", Expected::UDP8),
    ("hand_ip6", "C with lookup, IPv6", Expected::IP6),
    ("hand_udp", "C with lookup, IPv6, UDP + 8", Expected::UDP8),
];

/// The program that features are added to: its name in tables, without the shape.
pub const BASIS: &str = "C with lookup";

/// A program of the reference that has a feature more than [`BASIS`], or less.
pub struct Feature {
    /// Its name in the object, without the shape.
    program: &'static str,
    /// Its name in tables, without the shape.
    pub name: &'static str,
    /// The feature, in words.
    pub what: &'static str,
    /// Whether [`BASIS`] has the feature, and this has not.
    pub is_part: bool,
}

impl Feature {
    const fn more(program: &'static str, name: &'static str, what: &'static str) -> Self {
        Self {
            program,
            name,
            what,
            is_part: false,
        }
    }
}

/// All of them; the last has every feature.
pub const FEATURES: [Feature; 7] = [
    Feature {
        is_part: true,
        ..Feature::more("classless", "C without DSCP and ECN", "DSCP and ECN")
    },
    Feature::more(
        "hash",
        "C and flow hash",
        "the flow's hash: flow label, UDP source port",
    ),
    Feature::more("reason", "C and reason's counter", "counter by reason"),
    Feature::more(
        "counted",
        "C and socket's counter",
        "the socket's own counter (atomic)",
    ),
    Feature::more(
        "policy",
        "C and policy",
        "two exits and a generation, allowed by the policies of now",
    ),
    Feature::more(
        "limits",
        "C and limits",
        "lengths, protocol, super-packets, MTU, hop limit",
    ),
    Feature::more("all", "C and all of it", "all of these together"),
];

impl Lineup {
    /// What is added from now on has this headroom and is compared with the first of it.
    pub fn section(&mut self, headroom: Headroom) {
        self.base = self.variants.len();
        self.suffix = match headroom {
            Headroom::None => "",
            Headroom::Device => ", headroom",
        };
    }

    /// Adds a stand; variants follow with [`Self::add`].
    pub fn stand(&mut self, stand: Stand) -> usize {
        self.stands.push(stand);
        self.stands.len() - 1
    }

    /// Adds a variant.
    pub fn add(&mut self, name: &str, stand: usize, flow: Flow) {
        self.variants.push(Variant {
            name: format!("{name}{}", self.suffix),
            stand,
            flow,
            base: self.base,
        });
    }

    /// Without anything at the uplink.
    pub fn add_plain(&mut self, run: &Run, headroom: Headroom) -> Result<(), Error> {
        let stand = Stand::plain(headroom)?;
        let flow = stand.flow(&run.home)?;
        let stand = self.stand(stand);
        self.add("plain", stand, flow);
        Ok(())
    }

    /// The empty program of the reference.
    pub fn add_empty(&mut self, run: &Run, headroom: Headroom, chain: Chain) -> Result<(), Error> {
        let stand = Stand::reference(headroom, chain, "empty")?;
        let flow = stand.flow(&run.home)?;
        let stand = self.stand(stand);
        self.add(&chained("empty program", chain), stand, flow);
        Ok(())
    }

    /// The reference's encapsulation, with and without a lookup.
    pub fn add_by_hand(&mut self, run: &Run, headroom: Headroom) -> Result<(), Error> {
        for (program, name, expected) in BY_HAND {
            let mut stand = Stand::reference(headroom, Chain::here(), program)?;
            let flow = stand.flow_as(expected, &run.home)?;
            let stand = self.stand(stand);
            self.add(name, stand, flow);
        }
        Ok(())
    }

    /// The reference with a feature each, and with all.
    pub fn add_features(&mut self, run: &Run, headroom: Headroom) -> Result<(), Error> {
        let shapes = [
            ("ip6", Shape::Ip6, Expected::IP6),
            ("udp", Shape::Udp8, Expected::UDP8),
        ];
        for (end, shape, expected) in shapes {
            for feature in &FEATURES {
                let program = format!("{}_{end}", feature.program);
                let mut stand = Stand::reference(headroom, Chain::here(), &program)?;
                let flow = stand.flow_as(expected, &run.home)?;
                let stand = self.stand(stand);
                let name = format!("{}, {}", feature.name, shape.name());
                self.add(&name, stand, flow);
            }
        }
        Ok(())
    }

    /// The reference's lookup and nothing else.
    pub fn add_lookup(&mut self, run: &Run, headroom: Headroom) -> Result<(), Error> {
        let stand = Stand::reference(headroom, Chain::here(), "lookup")?;
        let (miss, forwarded) = (stand.flow(&run.home)?, stand.forwarded()?);
        let stand = self.stand(stand);
        self.add("C lookup alone, miss", stand, miss);
        self.add("C lookup alone, no socket", stand, forwarded);
        Ok(())
    }

    /// Each of our objects, in `shapes`, and packets that it lets pass.
    pub fn add_ours(
        &mut self,
        run: &Run,
        headroom: Headroom,
        chain: Chain,
        shapes: &[Shape],
        passing: Passing,
    ) -> Result<(), Error> {
        for object in &run.objects {
            let name = |what: &str| chained(&format!("{}, {what}", object.name), chain);
            let of_flags = |flags| Stand::ours(headroom, chain, &object.bytes, flags, &run.home);
            let is_summed = |shape: &&Shape| **shape == Shape::Checksum;
            let stand = of_flags(0)?;
            let number = self.stands.len();
            for shape in shapes.iter().filter(|shape| !is_summed(shape)) {
                let flow = stand.flow_to(*shape, &run.home)?;
                self.add(&name(shape.name()), number, flow);
            }
            if passing == Passing::Too {
                self.add(&name("miss"), number, stand.flow(&run.home)?);
                self.add(&name("no socket"), number, stand.forwarded()?);
            }
            self.stand(stand);
            for shape in shapes.iter().filter(is_summed) {
                let stand = of_flags(Config::UDP_CHECKSUM)?;
                let flow = stand.flow_to(*shape, &run.home)?;
                let stand = self.stand(stand);
                self.add(&name(shape.name()), stand, flow);
            }
        }
        Ok(())
    }

    /// One of the kernel's own ways.
    pub fn add_peer(&mut self, run: &Run, headroom: Headroom, peer: Peer) -> Result<(), Error> {
        let stand = Stand::plain(headroom)?;
        peer.install(&stand.bed)?;
        let mut flow = stand.flow(&run.home)?;
        flow.expected = peer.expected();
        let stand = self.stand(stand);
        self.add(peer.name(), stand, flow);
        Ok(())
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.variants.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    /// All of them.
    pub fn variants(&self) -> impl Iterator<Item = (usize, &Variant)> {
        self.variants.iter().enumerate()
    }

    /// Packets a second of one variant.
    pub fn rate(&mut self, number: usize, count: usize) -> Result<f64, Error> {
        let (stand, variant) = self.of(number);
        let time = stand.send(&variant.name, &mut variant.flow, count)?;
        Ok(count as f64 / time.as_secs_f64())
    }

    /// Nanoseconds a run of one variant's program; statistics must be on.
    pub fn run_time(&mut self, number: usize, count: usize) -> Result<f64, Error> {
        let (stand, variant) = self.of(number);
        stand.run_time(&variant.name, &mut variant.flow, count)
    }

    fn of(&mut self, number: usize) -> (&mut Stand, &mut Variant) {
        let variant = &mut self.variants[number];
        (&mut self.stands[variant.stand], variant)
    }
}

/// Whether packets that an object lets pass are measured as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// They are.
    Too,
    /// They are not.
    Not,
}

fn chained(name: &str, chain: Chain) -> String {
    if chain == Chain::here() {
        name.to_owned()
    } else {
        format!("{name}, cls_bpf")
    }
}
