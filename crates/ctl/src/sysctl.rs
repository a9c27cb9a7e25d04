//! The one kernel setting that reflection needs: `net.ipv4.tcp_fwmark_accept`, by which a
//! SYN-ACK and its connection take the mark of the SYN, and with it the route (MTU, MSS) of the
//! exit. It is the network namespace's; what was there before is remembered beside the
//! installation and comes back.

use anyhow::Context;
use std::fs;

const PATH: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";
/// As messages name it.
pub(crate) const NAME: &str = "net.ipv4.tcp_fwmark_accept";
/// What reflection needs.
pub(crate) const ON: &str = "1";

/// The value in the calling thread's network namespace.
pub(crate) fn read() -> anyhow::Result<String> {
    let text = fs::read_to_string(PATH).context(NAME)?;
    Ok(text.trim().to_owned())
}

/// Turns it on.
pub(crate) fn turn_on() -> anyhow::Result<()> {
    write(ON)
}

/// Puts back what was there, unless somebody has changed it since.
pub(crate) fn restore(was: &str) -> anyhow::Result<()> {
    if read()? == ON && was != ON {
        write(was)?;
    }
    Ok(())
}

fn write(value: &str) -> anyhow::Result<()> {
    fs::write(PATH, value).with_context(|| format!("{NAME} = {value}"))
}
