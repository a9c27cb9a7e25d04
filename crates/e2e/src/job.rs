//! What agents do: servers and clients of our own, whose payload is hashed at both ends.

pub mod bulk;
pub mod datagram;
pub mod ending;
pub mod passive;
pub mod probe;
pub mod reflecting;
pub mod request;
pub mod server;
pub mod switching;

use crate::agent::Job;

/// Every job of this crate.
pub const ALL: &[Job] = &[
    (server::NAME, server::run),
    (bulk::NAME, bulk::run),
    (bulk::MANY, bulk::run_many),
    (datagram::NAME, datagram::run),
    (ending::NAME, ending::run),
    (probe::NAME, probe::run),
    (request::NAME, request::run),
    (passive::LISTEN, passive::listen),
    (passive::FETCH, passive::fetch),
    (reflecting::LISTEN, reflecting::greet),
    (reflecting::PULL, reflecting::pull),
    (reflecting::ATTEMPTS, reflecting::attempt),
    (reflecting::DATAGRAMS, reflecting::volley),
    (switching::NAME, switching::run),
    (switching::WRITE, switching::run_write),
];
