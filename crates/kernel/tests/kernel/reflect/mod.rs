//! Reflection on the real kernel with real sockets: replies take the path by which packets came.

mod device;
mod follow;
mod packet;
mod stage;
mod tcp;
mod udp;
