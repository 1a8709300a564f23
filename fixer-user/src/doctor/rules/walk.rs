//! What becomes of a packet on its way through the rules.
//!
//! Where a packet may have been accepted on the way, by a rule of which it is not known whether it is
//! about the packet, a drop is only a possible one.

use serde_json::Value;

use super::{
    Chain, Ruleset,
    question::{Packet, Question, Truth},
    words::describe,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets through, as far as can be told.
    Passes,
    /// It is dropped, unless a rule that is not understood accepts it before.
    MayDrop,
    /// It is dropped.
    Drops,
}

/// A packet's way.
#[derive(Clone, Debug)]
pub struct Walk {
    /// What became of it.
    pub verdict: Verdict,
    /// Where it ended, if it was dropped.
    pub stop: Option<Stop>,
    /// Whether a rule finished its checksum on the way.
    pub summed: bool,
}

/// Where a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The family of the table.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chains on the way, that of the hook first.
    pub path: Vec<String>,
    /// The rule, or the policy of the chain.
    pub rule: String,
    /// Whether the old iptables made it.
    pub is_legacy: bool,
}

/// What a chain, or a rule, decides.
enum End {
    Accept,
    Drop(String),
    /// Nothing: the packet goes on where it came from.
    Return,
}

/// Chains may call each other in a circle only where the kernel would not have taken them.
const DEEPEST: usize = 32;

/// The word for a chain that drops what no rule accepts.
const POLICY: &str = "policy drop";

struct Walker<'a> {
    question: Question<'a>,
    path: Vec<String>,
    /// Whether it may have been accepted before.
    is_in_doubt: bool,
    summed: bool,
}

pub(super) fn walk(ruleset: &Ruleset, families: &[&str], hook: &str, packet: &Packet<'_>) -> Walk {
    let mut bases: Vec<_> = ruleset
        .chains
        .iter()
        .filter(|chain| families.contains(&chain.family.as_str()))
        .filter_map(|chain| Some((chain, chain.hook.as_ref().filter(|at| at.name == hook)?)))
        .filter(|(_, at)| at.device.as_deref().is_none_or(|device| Some(device) == packet.iif))
        .collect();
    bases.sort_by_key(|(_, at)| at.priority);
    let mut summed = false;
    let mut doubtful = None;
    for (chain, at) in bases {
        let path = vec![chain.name.clone()];
        let question = Question { ruleset, packet };
        let mut walker = Walker { question, path, is_in_doubt: false, summed: false };
        let end = walker.chain(chain);
        summed |= walker.summed;
        let rule = match end {
            End::Drop(rule) => rule,
            End::Return if at.drops => POLICY.to_owned(),
            End::Accept | End::Return => continue,
        };
        let stop = Stop {
            family: chain.family.clone(),
            table: chain.table.clone(),
            path: walker.path,
            rule,
            is_legacy: chain.is_legacy,
        };
        if !walker.is_in_doubt {
            return Walk { verdict: Verdict::Drops, stop: Some(stop), summed };
        }
        doubtful.get_or_insert(stop);
    }
    let verdict = if doubtful.is_some() { Verdict::MayDrop } else { Verdict::Passes };
    Walk { verdict, stop: doubtful, summed }
}

impl Walker<'_> {
    fn chain(&mut self, chain: &Chain) -> End {
        for rule in &chain.rules {
            match self.rule(chain, rule) {
                End::Return => {}
                end => return end,
            }
            if rule.iter().any(is_return) && self.question.truth(chain, rule) == Truth::Yes {
                return End::Return;
            }
        }
        End::Return
    }

    /// What a rule decides. A drop that may not be meant for the packet is passed over: there are
    /// many rules about connections that exist, and a first packet is of none.
    fn rule(&mut self, chain: &Chain, rule: &[Value]) -> End {
        let truth = self.question.truth(chain, rule);
        if truth == Truth::No {
            return End::Return;
        }
        for statement in rule {
            let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next())
            else {
                continue;
            };
            if kind == "xt" && value["name"] == "CHECKSUM" {
                self.summed = true;
            }
            let (kind, value) = match kind.as_str() {
                "vmap" => match self.question.lookup(chain, value) {
                    Some(found) => found,
                    None => continue,
                },
                kind => (kind.to_owned(), value.clone()),
            };
            match self.decide(chain, &kind, &value, truth) {
                Some(End::Drop(within)) if truth == Truth::Yes => {
                    let rule = if within.is_empty() { describe(rule) } else { within };
                    return End::Drop(rule);
                }
                Some(End::Accept) if truth == Truth::Yes => return End::Accept,
                Some(End::Accept) => self.is_in_doubt = true,
                Some(End::Drop(_) | End::Return) | None => {}
            }
        }
        End::Return
    }

    /// What a statement decides, if it does.
    fn decide(&mut self, chain: &Chain, kind: &str, value: &Value, truth: Truth) -> Option<End> {
        match kind {
            "accept" => Some(End::Accept),
            "drop" | "reject" => Some(End::Drop(String::new())),
            "xt" if value["name"] == "REJECT" => Some(End::Drop(String::new())),
            "queue" => {
                self.is_in_doubt = true;
                None
            }
            "jump" | "goto" => {
                let target = value["target"].as_str()?;
                let ruleset = self.question.ruleset;
                let its = |other: &&Chain| {
                    (&other.family, &other.table, other.is_legacy)
                        == (&chain.family, &chain.table, chain.is_legacy)
                        && other.name == target
                };
                let next = ruleset.chains.iter().find(its)?;
                if self.path.len() > DEEPEST {
                    return None;
                }
                self.path.push(target.to_owned());
                let end = self.chain(next);
                // The path of a drop that counts is kept.
                if !(matches!(end, End::Drop(_)) && truth == Truth::Yes) {
                    self.path.pop();
                }
                match end {
                    // Back in the chain of the hook, its policy decides.
                    End::Return if kind == "goto" && truth == Truth::Yes => {
                        chain.hook.as_ref().map(|hook| {
                            if hook.drops { End::Drop(POLICY.to_owned()) } else { End::Accept }
                        })
                    }
                    end => Some(end),
                }
            }
            _ => None,
        }
    }
}

fn is_return(statement: &Value) -> bool {
    statement.as_object().is_some_and(|object| object.contains_key("return"))
}
