//! The other direction: the client host listens, with an exit on its listener, and the server
//! host connects to it.

use crate::{
    agent::{self, say},
    exit::Exit,
    limit::seconds,
    payload::{Stream, hex},
    socket::{get, listener, mark, tcp},
};
use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP, SOL_DYNENCAP};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::SocketAddr,
};

/// The job that listens.
pub const LISTEN: &str = "listen";
/// The job that connects and reads until the end.
pub const FETCH: &str = "fetch";
/// Where the first listens.
pub const PORT: u16 = 9100;
/// What it says then.
pub const READY: &str = "listening";

/// What to serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// The listener's exit.
    pub exit: Exit,
    /// Bytes for each connection; their seed is the connection's number.
    pub bytes: u64,
    /// How many connections.
    pub connections: u64,
}

/// What an accepted socket says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// `ENCAP_GW`.
    pub gateway: Vec<u8>,
    /// `ENCAP_UDP`.
    pub udp: Vec<u8>,
    /// `SO_MARK`.
    pub mark: u32,
    /// SHA-256 of what was sent.
    pub sent: String,
}

/// Accepts, reads back the child's options, sends, closes.
pub fn listen(input: Value) -> Value {
    let order: Listen = agent::input(input);
    let listener = listener(PORT);
    order.exit.set(&listener).expect("the exit");
    say(READY);
    let children: Vec<Child> = (0..order.connections)
        .map(|number| {
            let (mut socket, _) = listener.accept().expect("accept");
            socket
                .set_write_timeout(Some(seconds(30)))
                .expect("SO_SNDTIMEO");
            let option = |name| get(&socket, SOL_DYNENCAP, name, 64).expect("our option");
            let (gateway, udp, mark) = (option(ENCAP_GW), option(ENCAP_UDP), mark(&socket));
            let mut payload = vec![0; usize::try_from(order.bytes).expect("fits")];
            Stream::new(number).fill(&mut payload);
            socket.write_all(&payload).expect("write");
            Child {
                gateway,
                udp,
                mark,
                sent: hex(&Sha256::digest(&payload)),
            }
        })
        .collect();
    agent::output(children)
}

/// Connects once; the SHA-256 of what comes.
pub fn fetch(input: Value) -> Value {
    let from: SocketAddr = agent::input(input);
    let mut socket = tcp(from);
    socket
        .connect_timeout(&from.into(), seconds(10))
        .expect("connect");
    socket
        .set_read_timeout(Some(seconds(30)))
        .expect("SO_RCVTIMEO");
    let mut payload = Vec::new();
    socket.read_to_end(&mut payload).expect("read");
    agent::output(hex(&Sha256::digest(&payload)))
}
