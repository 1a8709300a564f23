//! The configuration that is baked into a program when it is loaded.
//!
//! It is a read-only global of the object. The verifier knows its values and removes the code that
//! the configuration does not use, so what is off costs nothing.

use zerocopy::{Immutable, IntoBytes};

use crate::rule::{Family, MOST, Rule, Rules as _};

/// The name of the global.
pub const CONFIG: &str = "CONFIG";

/// The rules about one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct List {
    /// How many there are.
    pub count: u32,
    /// The rules; 0 behind the last.
    pub rules: [Rule; MOST],
}

/// What the global holds. All numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    /// 1 to count and report and change nothing.
    pub observe_only: u32,
    /// 1 to shrink twice: on kernels that clear the mark a step late.
    pub shrink_twice: u32,
    /// 1 if [`Rule::DHCP`] is the only rule.
    pub only_dhcp: u32,
    /// The rules about each family, in the order of their numbers.
    pub families: [List; Family::ALL.len()],
}

impl Config {
    /// What the object holds until it is loaded: no rule at all.
    pub const NONE: Self = Self {
        observe_only: 0,
        shrink_twice: 0,
        only_dhcp: 0,
        families: [List { count: 0, rules: [Rule::NONE; MOST] }; Family::ALL.len()],
    };

    /// The configuration with these rules and nothing else, or `None` if there are more than [`MOST`].
    pub fn new(rules: &[Rule]) -> Option<Self> {
        if rules.len() > MOST {
            return None;
        }
        let mut config = Self { only_dhcp: (rules == [Rule::DHCP]).into(), ..Self::NONE };
        for (family, list) in Family::ALL.into_iter().zip(&mut config.families) {
            let count = rules.count(family);
            list.count = count as u32;
            for (place, rule) in list.rules.iter_mut().take(count).enumerate() {
                let (kinds, filter) = (rules.kinds(family, place), rules.filter(family, place));
                *rule = Rule { kinds, filter };
            }
        }
        Some(config)
    }
}
