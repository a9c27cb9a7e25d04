//! Reflection on the real kernel with real sockets: replies take the path by which packets came.

mod packet;
mod stage;
mod tcp;
