//! What a pcapng interface description says that packets depend on.
//!
//! ```text
//! link type 2 | reserved 2 | snap length 4 | options (code 2 | length 2 | value, padded to 4)
//! ```

use super::LinkType;
use super::error::{Broken, Fault};
use super::order::ByteOrder;
use super::time::Clock;

const END: u16 = 0;
pub(super) const TIME_RESOLUTION: u16 = 9;
const TIME_OFFSET: u16 = 14;

const FIXED: usize = 8;
const OPTION_HEADER: usize = 4;

/// Where if_tsresol is absent.
const MICROSECONDS: u8 = 6;

#[derive(Debug)]
pub(super) struct Interface {
    /// None where it cannot be replayed; that counts once a packet comes.
    pub(super) link_type: Option<LinkType>,
    pub(super) link_number: u16,
    /// 0: none stated.
    pub(super) snap_length: u32,
    pub(super) clock: Clock,
}

impl Interface {
    /// From the body of a description; a fault's offset counts from there.
    pub(super) fn parse(order: ByteOrder, body: &[u8]) -> Result<Interface, Broken> {
        let [_, snap_length] = order.words(body).unwrap_or_default();
        let link_number = body.first_chunk().map_or(0, |number| order.u16(*number));
        let mut resolution = MICROSECONDS;
        let mut offset = 0;

        let mut at = FIXED;
        while let Some(([code, length], rest)) = option_header(order, body, at) {
            if code == END {
                break;
            }
            let value = rest.get(..usize::from(length)).ok_or_else(|| Broken {
                offset: at as u64,
                fault: Fault::OptionLength {
                    code,
                    expected: usize::from(length),
                    found: rest.len(),
                },
            })?;
            match code {
                TIME_RESOLUTION => [resolution] = defined(code, at, value)?,
                TIME_OFFSET => offset = order.i64(defined(code, at, value)?),
                _ => {}
            }
            at += OPTION_HEADER + usize::from(length).next_multiple_of(4);
        }
        Ok(Interface {
            link_type: LinkType::from_number(u32::from(link_number)),
            link_number,
            snap_length,
            clock: Clock::new(resolution, offset),
        })
    }
}

/// Code and length of the option at this place, and all that follows them.
fn option_header(order: ByteOrder, body: &[u8], at: usize) -> Option<([u16; 2], &[u8])> {
    let (header, rest) = body.get(at..)?.split_first_chunk::<OPTION_HEADER>()?;
    let [a, b, c, d] = *header;
    Some(([order.u16([a, b]), order.u16([c, d])], rest))
}

/// The value of an option whose length the specification fixes.
fn defined<const N: usize>(code: u16, at: usize, value: &[u8]) -> Result<[u8; N], Broken> {
    value.try_into().map_err(|_| Broken {
        offset: at as u64,
        fault: Fault::OptionLength {
            code,
            expected: N,
            found: value.len(),
        },
    })
}
