//! The model from outside: tables of cases for each section of `docs/datapath.md`, and the
//! properties that hold for all packets. `pnet_packet` parses what the model wrote.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod capture;
#[cfg(test)]
mod custom;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod follow;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod listen;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod option;
#[cfg(test)]
mod order;
#[cfg(test)]
mod outer;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reflecting;
#[cfg(test)]
mod reflection;
#[cfg(test)]
mod segment;
#[cfg(test)]
mod segmenter;
#[cfg(test)]
mod socket;
#[cfg(test)]
mod support;
#[cfg(test)]
mod too_big;
