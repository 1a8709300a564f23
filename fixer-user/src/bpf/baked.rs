//! What a program that is loaded was told: the configuration that was baked into it.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::{MapData, MapInfo},
    programs::loaded_programs,
};
use fixer_common::{
    abi::config::{Config, List},
    rule::{Family, Filter, Kind, MOST, Ports},
};

use super::raw::bpf;

/// The command of bpf(2) that reads a map.
const MAP_LOOKUP_ELEM: libc::c_long = 1;

/// What a program was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baked {
    /// It changes nothing.
    pub observes: bool,
    /// It looks at DHCP replies over IPv4.
    pub matches_dhcp: bool,
}

/// What the program with this id was told; `None` if that cannot be read, or is not understood.
pub fn of(program: u32) -> Option<Baked> {
    let program = loaded_programs().flatten().find(|info| info.id() == program)?;
    let is_constant =
        |id: &u32| MapInfo::from_id(*id).is_ok_and(|info| info.name_as_str() == Some(".rodata"));
    let map = program.map_ids().ok()??.into_iter().find(is_constant)?;
    understood(&constants(map).ok()?)
}

/// The bytes of a map with one value, which is at key 0.
fn constants(id: u32) -> io::Result<Vec<u8>> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        _padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let len = MapInfo::from_id(id).map_err(io::Error::other)?.value_size() as usize;
    let map = MapData::from_id(id).map_err(io::Error::other)?;
    // The kernel writes values in steps of eight bytes.
    let (key, mut value) = (0u32, vec![0u8; len.next_multiple_of(8)]);
    let mut attributes = Attributes {
        map: map.fd().as_fd().as_raw_fd() as u32,
        _padding: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are those of the command, and name a key and a buffer that are alive and
    // as long as the map's.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attributes) }?;
    value.truncate(len);
    Ok(value)
}

/// The configuration stands before the other constants. A program of another version may have something
/// else there, so whatever no configuration holds is not taken for one.
fn understood(constants: &[u8]) -> Option<Baked> {
    let words: Vec<_> = constants
        .get(..size_of::<Config>())?
        .chunks_exact(4)
        .map(|word| word.try_into().map(u32::from_ne_bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    let (flags, lists) = words.split_at_checked(3)?;
    let mut lists = lists.chunks_exact(size_of::<List>() / 4);
    if flags.iter().any(|flag| *flag > 1) || lists.len() != Family::ALL.len() {
        return None;
    }
    let rules = lists.clone().map(rules).collect::<Option<Vec<_>>>()?;
    if rules.iter().all(|rules| rules.is_empty()) {
        return None;
    }
    let ports = Some(Ports::from_wire([0, 67, 0, 68]));
    let is_dhcp =
        |(kinds, filter): &(u32, Filter)| kinds & Kind::Udp4 as u32 != 0 && filter.matches(ports);
    let matches_dhcp = lists.next().and_then(self::rules)?.iter().any(is_dhcp);
    Some(Baked { observes: flags[0] == 1, matches_dhcp })
}

/// The rules of a list: kinds and filter. `None`: this is no list.
fn rules(list: &[u32]) -> Option<Vec<(u32, Filter)>> {
    let (count, rules) = list.split_first()?;
    let every = Kind::ALL.iter().fold(0, |kinds, kind| kinds | *kind as u32);
    let rules: Vec<_> = rules
        .chunks_exact(3)
        .map(|rule| (rule[0], Filter { mask: rule[1], wanted: rule[2] }))
        .collect();
    let (used, unused) = rules.split_at_checked(*count as usize)?;
    let is_rule = |(kinds, filter): &(u32, Filter)| {
        *kinds != 0 && kinds & !every == 0 && filter.wanted & !filter.mask == 0
    };
    let is_zero = |(kinds, filter): &(u32, Filter)| [*kinds, filter.mask, filter.wanted] == [0; 3];
    (rules.len() == MOST && used.iter().all(is_rule) && unused.iter().all(is_zero))
        .then(|| used.to_vec())
}

#[cfg(test)]
mod tests {
    use fixer_common::rule::Rule;
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn what_was_baked_is_read_back() {
        let baked = |rules: &[Rule], observe_only: u32| {
            let config = Config { observe_only, ..Config::new(rules).unwrap() };
            understood(&[config.as_bytes(), b"more"].concat())
        };
        let fixes = Baked { observes: false, matches_dhcp: true };
        assert_eq!(baked(&[Rule::DHCP], 0), Some(fixes));
        assert_eq!(baked(&[Rule::DHCP], 1), Some(Baked { observes: true, ..fixes }));
        assert_eq!(baked(&[Rule::DHCPV6], 0), Some(Baked { matches_dhcp: false, ..fixes }));
        assert_eq!(baked(&[Rule::DHCPV6, Rule::DHCP], 0), Some(fixes));
    }

    #[test]
    fn what_is_none_is_not_understood() {
        assert_eq!(understood(&[]), None);
        assert_eq!(understood(&[0; 512]), None);
        assert_eq!(understood(&[1; 512]), None);
        assert_eq!(understood(&b"a message of another version ".repeat(16)), None);
    }
}
