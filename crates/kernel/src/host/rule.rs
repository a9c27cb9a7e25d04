//! One rule in a form that can be compared.

use super::{Family, PROTOCOL, Plan};
use dynencap_abi::MARK_OVERHEAD_MASK;
use rtnetlink::{
    packet_core::Nla,
    packet_route::{
        route::RouteProtocol,
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};
use std::fmt;

/// A rule of ours, or one that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule(RuleMessage);

impl Rule {
    /// As the kernel told it, if it is ours.
    pub(super) fn ours(message: &RuleMessage) -> Option<Self> {
        let protocol = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
        message
            .attributes
            .contains(&protocol)
            .then(|| Self::new(message.clone()))
    }

    /// The one that leads packets of an overhead to their table.
    pub(super) fn planned(plan: &Plan, family: Family, overhead: u8) -> Self {
        let mut rule = RuleMessage::default();
        rule.header.family = family.address_family();
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(plan.rule_priority),
            RuleAttribute::FwMark(Plan::mark(overhead)),
            RuleAttribute::FwMask(MARK_OVERHEAD_MASK),
            RuleAttribute::Table(plan.table(overhead)),
            RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        ];
        Self::new(rule)
    }

    fn new(mut rule: RuleMessage) -> Self {
        if !rule
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, RuleAttribute::Table(_)))
        {
            let table = u32::from(rule.header.table);
            rule.attributes.push(RuleAttribute::Table(table));
        }
        rule.header.table = 0;
        rule.header.flags &= RuleFlags::Invert;
        // The kernel says of every rule that it suppresses nothing.
        rule.attributes
            .retain(|attribute| *attribute != RuleAttribute::SuppressPrefixLen(u32::MAX));
        rule.attributes.sort_by_key(Nla::kind);
        Self(rule)
    }

    pub(super) fn message(&self) -> &RuleMessage {
        &self.0
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = Family::of(self.0.header.family);
        write!(f, "{} rule", family.map_or("?", Family::name))?;
        for attribute in &self.0.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => write!(f, " {priority}:")?,
                RuleAttribute::FwMark(mark) => write!(f, " fwmark {mark:#x}")?,
                RuleAttribute::FwMask(mask) => write!(f, "/{mask:#x}")?,
                RuleAttribute::Table(table) => write!(f, " lookup {table}")?,
                _ => {}
            }
        }
        Ok(())
    }
}
