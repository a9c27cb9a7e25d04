//! The name of the field at an offset of a frame: what a divergence shows first.
//!
//! A reader of its own for reports alone, so that it is right also where an engine is wrong:
//! it walks outer IPv6, UDP and the inner packet as far as they can be recognised.

/// The field at `offset` of a frame that begins with its IP header, such as
/// `"outer IPv6 flow label"`. `ethertype` is in host byte order.
#[must_use]
pub fn name_at(frame: &[u8], ethertype: u16, offset: usize) -> String {
    let mut walk = Walk {
        frame,
        base: 0,
        depth: 0,
    };
    let found = match ethertype {
        0x0800 => walk.ipv4(offset),
        0x86dd => walk.ipv6(offset),
        _ => None,
    };
    found.unwrap_or_else(|| format!("byte {offset}"))
}

type Field = (usize, &'static str);

/// Field names by the offset at which they end.
const IPV6: &[Field] = &[
    (1, "version and traffic class"),
    (4, "traffic class and flow label"),
    (6, "payload length"),
    (7, "next header"),
    (8, "hop limit"),
    (24, "source"),
    (40, "destination"),
];
const IPV4: &[Field] = &[
    (1, "version and IHL"),
    (2, "DSCP and ECN"),
    (4, "total length"),
    (6, "identification"),
    (8, "flags and fragment offset"),
    (9, "TTL"),
    (10, "protocol"),
    (12, "header checksum"),
    (16, "source"),
    (20, "destination"),
];
const UDP: &[Field] = &[
    (2, "source port"),
    (4, "destination port"),
    (6, "length"),
    (8, "checksum"),
];
const TCP: &[Field] = &[
    (2, "source port"),
    (4, "destination port"),
    (8, "sequence number"),
    (12, "acknowledgment number"),
    (13, "data offset"),
    (14, "flags"),
    (16, "window"),
    (18, "checksum"),
    (20, "urgent pointer"),
];

struct Walk<'a> {
    frame: &'a [u8],
    base: usize,
    depth: u8,
}

impl Walk<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.frame.get(self.base + at).copied()
    }

    fn layer(&self) -> &'static str {
        match self.depth {
            0 => "outer",
            1 => "inner",
            _ => "nested",
        }
    }

    fn named(&self, layer: &str, fields: &[Field], offset: usize) -> Option<String> {
        let within = offset.checked_sub(self.base)?;
        let (_, name) = fields.iter().find(|(end, _)| within < *end)?;
        Some(format!("{} {layer} {name}", self.layer()))
    }

    fn ipv6(&mut self, offset: usize) -> Option<String> {
        if offset < self.base + 40 {
            return self.named("IPv6", IPV6, offset);
        }
        let next = self.byte(6)?;
        self.base += 40;
        self.upper(next, offset)
    }

    fn ipv4(&mut self, offset: usize) -> Option<String> {
        let len = usize::from(self.byte(0)? & 15) * 4;
        if offset < self.base + len {
            return Some(
                self.named("IPv4", IPV4, offset)
                    .unwrap_or_else(|| format!("{} IPv4 options", self.layer())),
            );
        }
        let next = self.byte(9)?;
        self.base += len;
        self.upper(next, offset)
    }

    fn upper(&mut self, protocol: u8, offset: usize) -> Option<String> {
        match protocol {
            4 | 41 => {
                self.depth = self.depth.saturating_add(1);
                if protocol == 4 {
                    self.ipv4(offset)
                } else {
                    self.ipv6(offset)
                }
            }
            6 => {
                let len = usize::from(self.byte(12)? >> 4) * 4;
                let within = offset.checked_sub(self.base)?;
                Some(match self.named("TCP", TCP, offset) {
                    Some(name) => name,
                    None if within < len => format!("{} TCP options", self.layer()),
                    None => format!(
                        "{} TCP payload byte {}",
                        self.layer(),
                        within - len.min(within)
                    ),
                })
            }
            17 => {
                if let Some(name) = self.named("UDP", UDP, offset) {
                    return Some(name);
                }
                let within = offset.checked_sub(self.base + 8)?;
                Some(format!("{} UDP payload byte {within}", self.layer()))
            }
            _ => {
                let within = offset.checked_sub(self.base)?;
                Some(format!(
                    "{} payload byte {within} (protocol {protocol})",
                    self.layer()
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::name_at;

    #[test]
    fn fields_are_named_through_the_layers() {
        let mut frame = vec![0u8; 120];
        frame[0] = 0x60;
        frame[6] = 41;
        frame[40] = 0x60;
        frame[46] = 6;
        frame[92] = 0x80;
        let cases: &[(usize, &str)] = &[
            (0, "outer IPv6 version and traffic class"),
            (2, "outer IPv6 traffic class and flow label"),
            (7, "outer IPv6 hop limit"),
            (39, "outer IPv6 destination"),
            (45, "inner IPv6 payload length"),
            (84, "inner TCP sequence number"),
            (97, "inner TCP checksum"),
            (101, "inner TCP options"),
            (115, "inner TCP payload byte 3"),
        ];
        for (offset, name) in cases {
            assert_eq!(name_at(&frame, 0x86dd, *offset), *name);
        }
        frame[6] = 17;
        assert_eq!(name_at(&frame, 0x86dd, 46), "outer UDP checksum");
        assert_eq!(name_at(&frame, 0x86dd, 50), "outer UDP payload byte 2");
        frame[0] = 0x46;
        frame[9] = 1;
        assert_eq!(name_at(&frame, 0x0800, 11), "outer IPv4 header checksum");
        assert_eq!(name_at(&frame, 0x0800, 22), "outer IPv4 options");
        assert_eq!(
            name_at(&frame, 0x0800, 30),
            "outer payload byte 6 (protocol 1)"
        );
        assert_eq!(name_at(&[], 0x86dd, 90), "byte 90");
        assert_eq!(name_at(&[1], 0x0806, 0), "byte 0");
    }
}
