//! Calls for exits, each on a socket of its own, and what the hooks answer.

use crate::{
    agent,
    exit::Exit,
    socket::{errno, set},
    topology::SERVER,
};
use dynencap_abi::option::{ENCAP_GW, ENCAP_UDP, SOL_DYNENCAP};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// The job's name.
pub const NAME: &str = "request";

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// An exit for a new TCP socket.
    Exit(Exit),
    /// An exit, then none.
    Clear(Exit),
    /// An MPTCP socket.
    Multipath,
}

/// The errno of each, 0 for success; of `Clear` that of the clearing call.
pub fn run(input: Value) -> Value {
    let requests: Vec<Request> = agent::input(input);
    let answers: Vec<i32> = requests
        .iter()
        .map(|request| answer(request).err().unwrap_or(0))
        .collect();
    agent::output(answers)
}

fn answer(request: &Request) -> Result<(), i32> {
    const IPPROTO_MPTCP: i32 = 262;
    let socket = || crate::socket::tcp((SERVER, 1).into());
    match request {
        Request::Exit(exit) => errno(exit.set(socket())),
        Request::Clear(exit) => {
            let socket = socket();
            exit.set(&socket).expect("the exit");
            // The UDP settings may always go.
            set(&socket, SOL_DYNENCAP, ENCAP_UDP, &[])?;
            set(&socket, SOL_DYNENCAP, ENCAP_GW, &[])
        }
        Request::Multipath => {
            let protocol = Protocol::from(IPPROTO_MPTCP);
            errno(Socket::new(Domain::IPV6, Type::STREAM, Some(protocol))).map(drop)
        }
    }
}
