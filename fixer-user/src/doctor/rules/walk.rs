//! What becomes of a packet on its way through the rules.
//!
//! Where a packet may have been accepted on the way, or may have gone elsewhere, a drop is only a
//! possible one.

use serde_json::Value;

use super::{
    Chain, Hook, KEPT, Ruleset, Truth,
    ask::{Found, Question, is_seldom},
    known::Packet,
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

impl Stop {
    /// The program that made the chain, if it was not nft: iptables, or ebtables.
    pub fn made_by(&self) -> Option<&'static str> {
        let is_its =
            |family: &str, tables: &[&str]| self.family == family && tables.contains(&&*self.table);
        let is_built_in = self.path.first()?.chars().all(char::is_uppercase);
        let found = KEPT.iter().find(|(_, family, tables)| is_its(family, tables));
        found.filter(|_| is_built_in).map(|(program, ..)| *program)
    }
}

/// Where a packet is behind a rule, or behind a chain.
enum End {
    Accept,
    Drop(String),
    /// Back where the chain was jumped to from, or at the policy.
    Return,
    /// At the next rule.
    Next,
}

/// Chains may call each other in a circle only where the kernel would not have taken them.
const DEEPEST: usize = 32;

/// The word for a chain that drops what no rule accepts.
const POLICY: &str = "policy drop";

/// Targets of iptables that decide nothing about a packet.
const NEUTRAL: [&str; 16] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CT",
    "DNAT",
    "DSCP",
    "LOG",
    "MARK",
    "MASQUERADE",
    "NFLOG",
    "REDIRECT",
    "SET",
    "SNAT",
    "TCPMSS",
    "TRACE",
];

struct Walker<'a> {
    ruleset: &'a Ruleset,
    packet: &'a Packet<'a>,
    path: Vec<String>,
    /// Whether it may have been accepted, or handed to a program, before.
    is_in_doubt: bool,
    /// How many of the chains that it is in it may have left before.
    left: usize,
    /// What it is known to have in common with the rules that led it here, and with this one.
    bond: Bond,
    /// Where a rule that names its ports drops it perhaps: the chains on the way, and the rule.
    suspect: Option<(Vec<String>, String)>,
    summed: bool,
}

/// How rules are about a packet, from the first that led to another chain to the one it is at.
#[derive(Clone, Copy, Default)]
struct Bond {
    /// Whether one of them names its ports.
    names_ports: bool,
    /// Whether one of them names the port of a bridge that it came in by.
    names_port: bool,
    /// Whether one of them is about few packets only.
    is_seldom: bool,
    /// Whether one of them is perhaps not about it at all.
    is_loose: bool,
}

pub(super) fn walk(ruleset: &Ruleset, families: &[&str], hook: &str, packet: &Packet<'_>) -> Walk {
    let device = if hook == "egress" { packet.oif } else { packet.iif };
    let is_here = |at: &Hook| match &at.devices {
        Some(devices) => devices.iter().any(|it| Some(&**it) == device),
        None => device.is_some() || !at.is_of_devices(),
    };
    let mut bases: Vec<_> = ruleset
        .chains
        .iter()
        .filter(|chain| families.contains(&chain.family.as_str()))
        .filter_map(|chain| Some((chain, chain.hook.as_ref().filter(|at| at.name == hook)?)))
        .filter(|(_, at)| is_here(at))
        .collect();
    bases.sort_by_key(|(_, at)| at.priority);
    let mut summed = false;
    let mut doubtful = None;
    for (chain, at) in bases {
        let path = vec![chain.name.clone()];
        let is_in_doubt = chain.hides_devices();
        let (bond, suspect) = (Bond::default(), None);
        let mut walker =
            Walker { ruleset, packet, path, is_in_doubt, left: 0, bond, suspect, summed: false };
        let end = walker.chain(chain);
        summed |= walker.summed;
        let stop = |path, rule| Stop {
            family: chain.family.clone(),
            table: chain.table.clone(),
            path,
            rule,
            is_legacy: chain.is_legacy,
        };
        let suspect = walker.suspect.map(|(path, rule)| stop(path, rule));
        let drop = match end {
            End::Drop(rule) => Some(stop(walker.path, rule)),
            End::Return if at.drops => Some(stop(walker.path, POLICY.to_owned())),
            End::Accept | End::Return | End::Next => None,
        };
        if drop.is_some() && !walker.is_in_doubt && walker.left == 0 {
            return Walk { verdict: Verdict::Drops, stop: drop, summed };
        }
        doubtful = doubtful.or(suspect).or(drop);
    }
    let verdict = if doubtful.is_some() { Verdict::MayDrop } else { Verdict::Passes };
    Walk { verdict, stop: doubtful, summed }
}

impl Walker<'_> {
    /// Where a packet is behind a chain: never at the next rule.
    fn chain(&mut self, chain: &Chain) -> End {
        let mut may_have_left = false;
        for rule in &chain.rules {
            let question = self.question(chain);
            let (truth, names_ports) = (question.rule(rule), question.names_ports(rule));
            let before = self.bond;
            let (names_port, names_guest) = (question.names_port(rule), question.names_guest(rule));
            self.bond.names_port |= names_port;
            self.bond.names_ports |= names_ports;
            self.bond.is_seldom |= is_seldom(rule);
            self.bond.is_loose |= truth == Truth::Perhaps;
            let end = match truth {
                Truth::No => End::Next,
                truth => self.rule(chain, rule, truth),
            };
            // What lets one hardware address through at one port means the guest there.
            let is_meant = self.bond.names_port && names_guest;
            self.bond = before;
            let truth = match end {
                End::Accept | End::Return if is_meant => Truth::Yes,
                _ => truth,
            };
            match (end, truth) {
                (End::Next, _) => {}
                (End::Return, Truth::Yes) => break,
                // Whatever drops it from here to the end of this chain drops it only perhaps.
                (End::Return, _) => {
                    self.left += usize::from(!may_have_left);
                    may_have_left = true;
                }
                (End::Accept, Truth::Yes) => return End::Accept,
                (End::Accept, _) => self.is_in_doubt = true,
                (End::Drop(rule), Truth::Yes) => return End::Drop(rule),
                // There are many rules about what is not known here, and most are about other packets.
                (End::Drop(_), _) => {}
            }
        }
        self.left -= usize::from(may_have_left);
        End::Return
    }

    fn question<'q>(&'q self, chain: &'q Chain) -> Question<'q> {
        Question { ruleset: self.ruleset, packet: self.packet, chain }
    }

    /// Where a packet is behind a rule that is about it, or perhaps is.
    fn rule(&mut self, chain: &Chain, rule: &[Value], truth: Truth) -> End {
        for statement in rule {
            let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next())
            else {
                continue;
            };
            let (kind, value) = match kind.as_str() {
                "vmap" => match self.question(chain).lookup(value) {
                    Found::Verdict(kind, value) => (kind, value),
                    Found::Nothing => return End::Next,
                    Found::Perhaps => {
                        self.is_in_doubt = true;
                        return End::Next;
                    }
                },
                kind => (kind.to_owned(), value.clone()),
            };
            match self.decide(chain, &kind, &value, truth) {
                End::Drop(within) if within.is_empty() => {
                    let described = describe(rule);
                    self.suspect(&described);
                    return End::Drop(described);
                }
                End::Next => {}
                end => return end,
            }
        }
        End::Next
    }

    /// Keeps in mind a rule that drops the packet perhaps. Only one that names its ports is meant for
    /// such packets, and one that bounds a rate for too many of them.
    fn suspect(&mut self, rule: &str) {
        let Bond { names_ports, is_seldom, is_loose, .. } = self.bond;
        if is_loose && names_ports && !is_seldom {
            self.suspect.get_or_insert_with(|| (self.path.clone(), rule.to_owned()));
        }
    }

    /// Where a packet is behind a statement.
    fn decide(&mut self, chain: &Chain, kind: &str, value: &Value, truth: Truth) -> End {
        match kind {
            "accept" => End::Accept,
            "drop" | "reject" => End::Drop(String::new()),
            "return" => End::Return,
            "jump" => match self.go(chain, value, truth) {
                End::Return => End::Next,
                end => end,
            },
            // Behind its end a packet is where it would be behind the end of this chain.
            "goto" => self.go(chain, value, truth),
            "queue" | "fwd" | "synproxy" | "tproxy" => {
                self.is_in_doubt = true;
                End::Next
            }
            "xt" if value["type"] == "target" => self.target(value["name"].as_str()),
            _ => End::Next,
        }
    }

    fn target(&mut self, name: Option<&str>) -> End {
        match name {
            Some("REJECT") => return End::Drop(String::new()),
            Some("CHECKSUM") => self.summed |= !self.bond.is_loose,
            Some(name) if NEUTRAL.contains(&name) => {}
            // It may be one that hands the packet to a program, or keeps it.
            _ => self.is_in_doubt = true,
        }
        End::Next
    }

    /// Where a packet is behind another chain.
    fn go(&mut self, chain: &Chain, value: &Value, truth: Truth) -> End {
        let ruleset = self.ruleset;
        let target = value["target"].as_str().unwrap_or_default();
        let next = ruleset.beside(chain, target).filter(|_| self.path.len() <= DEEPEST);
        let Some(next) = next else {
            self.is_in_doubt = true;
            return End::Next;
        };
        let (depth, left) = (self.path.len(), self.left);
        self.path.push(target.to_owned());
        let end = self.chain(next);
        // The way to a drop that counts is kept, with its doubts.
        if !(matches!(end, End::Drop(_)) && truth == Truth::Yes) {
            self.path.truncate(depth);
            self.left = left;
        }
        end
    }
}
