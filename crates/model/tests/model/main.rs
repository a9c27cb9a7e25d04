//! The model from outside: tables of cases for each section of `docs/datapath.md`, and the
//! properties that hold for all packets. `pnet_packet` parses what the model wrote.

#[cfg(test)]
mod egress;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod learning;
#[cfg(test)]
mod order;
#[cfg(test)]
mod outer;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod properties;
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
