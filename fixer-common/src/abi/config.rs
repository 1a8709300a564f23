//! The configuration that is baked into a program when it is loaded.
//!
//! It is a read-only global of the object. The verifier knows its values and removes the code that
//! the configuration does not use, so what is off costs nothing.

use zerocopy::{Immutable, IntoBytes};

use crate::rule::{Filter, Kind, MOST, Rule, Rules as _};

/// The name of the global.
pub const CONFIG: &str = "CONFIG";

/// The rules about one kind of transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Filters {
    /// How many there are.
    pub count: u32,
    /// What they want of the ports; 0 behind the last.
    pub filters: [Filter; MOST],
}

/// What the global holds. All numbers in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Config {
    /// 1 to count and report and change nothing.
    pub observe_only: u32,
    /// 1 to shrink twice: on kernels that clear the mark a step late.
    pub shrink_twice: u32,
    /// The rules about each kind, in the order of the [`Kind`]s' numbers.
    pub kinds: [Filters; Kind::ALL.len()],
}

impl Config {
    /// What the object holds until it is loaded: no rule at all.
    pub const NONE: Self = Self {
        observe_only: 0,
        shrink_twice: 0,
        kinds: [Filters { count: 0, filters: [Filter { mask: 0, wanted: 0 }; MOST] };
            Kind::ALL.len()],
    };

    /// The configuration with these rules and nothing else, or `None` if there are more than [`MOST`].
    pub fn new(rules: &[Rule]) -> Option<Self> {
        if rules.len() > MOST {
            return None;
        }
        let mut config = Self::NONE;
        for (kind, about) in Kind::ALL.into_iter().zip(&mut config.kinds) {
            let count = rules.count(kind);
            about.count = count as u32;
            for (place, filter) in about.filters.iter_mut().take(count).enumerate() {
                *filter = rules.filter(kind, place);
            }
        }
        Some(config)
    }
}
