//! Routing rules: which table answers for packets of a device or of an address.

use std::net::IpAddr;

use super::family::{self, Family};
use super::message::{self, Message};
use super::{Netlink, Result};

/// Length of `fib_rule_hdr`: family, lengths, TOS, table, two reserved bytes, action, flags.
const HEADER_LEN: usize = 12;
// linux/fib_rules.h
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_UNREACHABLE: u8 = 7;

/// A routing rule that looks only at devices and at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whose packets it looks at.
    pub family: Family,
    /// Place in the list; smaller comes first.
    pub priority: u32,
    /// Packets that arrived by this device.
    pub input: Option<String>,
    /// Packets whose socket is bound to this device.
    pub output: Option<String>,
    /// Packets from this address.
    pub source: Option<IpAddr>,
    /// What to do with them.
    pub action: RuleAction,
    /// Who made the rule; the kernel only keeps the number.
    pub protocol: u8,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Look in this table; when it has no answer, go on with the next rule.
    Lookup(u32),
    /// There is no way.
    Unreachable,
}

impl Netlink {
    /// Adds a rule.
    ///
    /// # Errors
    /// When the kernel refuses it; `EEXIST` when there is an equal one.
    pub fn add_rule(&mut self, rule: &Rule) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        self.request(&format!("add the rule {rule:?}"), encode(libc::RTM_NEWRULE, flags, rule))
    }

    /// Deletes a rule.
    ///
    /// # Errors
    /// When the kernel refuses it; `ENOENT` when there is none.
    pub fn delete_rule(&mut self, rule: &Rule) -> Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.request(&format!("delete the rule {rule:?}"), encode(libc::RTM_DELRULE, flags, rule))
    }

    /// All rules of both families that carry `protocol`.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub fn rules(&mut self, protocol: u8) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for family in Family::ALL {
            let mut header = [0; HEADER_LEN];
            header[0] = family.number();
            let wanted = (libc::RTM_GETRULE, &header[..]);
            let parse = |payload: &_| parse(payload).filter(|rule| rule.protocol == protocol);
            rules.extend(self.list_of("list the routing rules", family, wanted, parse)?);
        }
        Ok(rules)
    }
}

fn encode(kind: u16, flags: i32, rule: &Rule) -> Message {
    let mut header = [0; HEADER_LEN];
    header[0] = rule.family.number();
    header[2] = if rule.source.is_some() { rule.family.bits() } else { 0 };
    header[7] = match rule.action {
        RuleAction::Lookup(_) => FR_ACT_TO_TBL,
        RuleAction::Unreachable => FR_ACT_UNREACHABLE,
    };
    let mut message = Message::new(kind, flags, &header);
    message.attribute_u32(FRA_PRIORITY, rule.priority).attribute(FRA_PROTOCOL, &[rule.protocol]);
    if let RuleAction::Lookup(table) = rule.action {
        message.attribute_u32(FRA_TABLE, table);
    }
    if let Some(source) = rule.source {
        message.attribute_address(FRA_SRC, source);
    }
    if let Some(device) = &rule.input {
        message.attribute_string(FRA_IIFNAME, device);
    }
    if let Some(device) = &rule.output {
        message.attribute_string(FRA_OIFNAME, device);
    }
    message
}

fn parse(payload: &[u8]) -> Option<Rule> {
    let mut table = u32::from(*payload.get(4)?);
    // The kernel leaves the priority out when it is zero.
    let mut rule = Rule {
        family: Family::from_number(*payload.first()?)?,
        priority: 0,
        input: None,
        output: None,
        source: None,
        action: RuleAction::Unreachable,
        protocol: 0,
    };
    for (kind, value) in message::attributes_after(payload, HEADER_LEN) {
        match kind {
            FRA_IIFNAME => rule.input = Some(message::string(value)),
            FRA_OIFNAME => rule.output = Some(message::string(value)),
            FRA_SRC => rule.source = family::address(value),
            FRA_PRIORITY => rule.priority = message::u32_at(value, 0)?,
            FRA_TABLE => table = message::u32_at(value, 0)?,
            FRA_PROTOCOL => rule.protocol = *value.first()?,
            _ => {}
        }
    }
    rule.action = match *payload.get(7)? {
        FR_ACT_TO_TBL => RuleAction::Lookup(table),
        FR_ACT_UNREACHABLE => RuleAction::Unreachable,
        _ => return None,
    };
    Some(rule)
}
