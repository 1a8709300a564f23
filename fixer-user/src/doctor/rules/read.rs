//! Who is asked for the rules, and what they do not tell.

use std::{fs, io};

use super::{Chain, KEPT, Ruleset, legacy, nft};
use crate::{
    doctor::program::{self, Backend},
    net::{
        netns::NetNs,
        nftables::{self, Table},
    },
};

/// What is read, and what could not be.
struct Reader<'a> {
    netns: &'a NetNs,
    ruleset: Ruleset,
    unread: Vec<String>,
}

/// Reads the rules of a namespace, and says what could not be read of them. It makes no table and
/// loads none.
pub(super) fn read(netns: &NetNs) -> (Ruleset, Vec<String>) {
    let mut reader = Reader { netns, ruleset: Ruleset::default(), unread: Vec::new() };
    for part in [Reader::nftables, Reader::legacy] {
        if let Err(error) = part(&mut reader) {
            reader.unread.push(format!("{error}; run as root"));
        }
    }
    (reader.ruleset, reader.unread)
}

impl Reader<'_> {
    fn ask(&self, program: &str, arguments: &[&str]) -> io::Result<Option<String>> {
        program::ask(self.netns, program, arguments).transpose()
    }

    /// What a program of iptables' says of its tables in nftables, or in the kernel's older place.
    fn saved(&self, program: &str, backend: Backend) -> io::Result<Option<String>> {
        let Some(program) = program::of(self.netns, program, backend) else { return Ok(None) };
        self.ask(&format!("{program}-save"), &[])
    }

    fn nftables(&mut self) -> io::Result<()> {
        let Some(listing) = self.ask("nft", &["-j", "list", "ruleset"])? else {
            return self.without_nft();
        };
        nft::read(&listing, &mut self.ruleset)?;
        for family in ["netdev", "inet"] {
            let is_hidden = |chain: &Chain| chain.family == family && chain.hides_devices();
            if self.ruleset.chains.iter().any(is_hidden)
                && let Some(listing) = self.ask("nft", &["list", "chains", family])?
            {
                nft::read_devices(&listing, &mut self.ruleset);
            }
        }
        for (program, family, tables) in KEPT {
            let hides = |ruleset: &Ruleset| {
                let mut chains = ruleset.chains.iter().filter(|chain| chain.family == family);
                chains.any(|chain| chain.rules.iter().any(|rule| nft::hides_match(rule)))
            };
            if !hides(&self.ruleset) {
                continue;
            }
            if let Some(listing) = self.saved(program, Backend::Nft)? {
                let mut told = Ruleset::default();
                legacy::read(&listing, family, false, &mut told);
                told.chains.retain(|chain| tables.contains(&&*chain.table));
                self.ruleset.reveal(&told);
            }
            if hides(&self.ruleset) {
                self.unread.push(format!(
                    "what some of its rules match, for nft does not tell; install {program}"
                ));
            }
        }
        Ok(())
    }

    /// The kernel tells which tables there are, and iptables what is in its own.
    fn without_nft(&mut self) -> io::Result<()> {
        let mut tables = nftables::tables(self.netns)?;
        for (program, family, names) in KEPT {
            let is_kept = |table: &Table| table.family == family && names.contains(&&*table.name);
            if tables.iter().any(is_kept)
                && let Some(listing) = self.saved(program, Backend::Nft)?
                && !listing.contains("is incompatible")
            {
                legacy::read(&listing, family, false, &mut self.ruleset);
                tables.retain(|table| !is_kept(table));
            }
        }
        if !tables.is_empty() {
            let names: Vec<_> =
                tables.iter().map(|table| format!("{} {}", table.family, table.name)).collect();
            self.unread.push(format!(
                "the tables of nftables ({}), which no program here can list; install nftables",
                names.join(", ")
            ));
        }
        Ok(())
    }

    /// Asked about a table that is not there, the old iptables would make it.
    fn legacy(&mut self) -> io::Result<()> {
        let read = || fs::read_to_string("/proc/thread-self/net/ip_tables_names");
        let names = match self.netns.run(read)? {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if names.trim().is_empty() {
            return Ok(());
        }
        match self.saved("iptables", Backend::Legacy)? {
            Some(listing) => legacy::read(&listing, "ip", true, &mut self.ruleset),
            None => self.unread.push(format!(
                "the tables of the old iptables ({}), which no program here can list; install \
                 iptables",
                names.split_whitespace().collect::<Vec<_>>().join(", ")
            )),
        }
        Ok(())
    }
}

impl Ruleset {
    /// Takes what a listing says of those rules of which nft hides a match. Both have the rules of a
    /// chain in one order; of the others nft knows more.
    fn reveal(&mut self, told: &Self) {
        for chain in &mut self.chains {
            let is_it = |other: &&Chain| {
                (&other.family, &other.table, &other.name)
                    == (&chain.family, &chain.table, &chain.name)
                    && other.rules.len() == chain.rules.len()
            };
            let Some(other) = told.chains.iter().find(is_it) else { continue };
            for (rule, told) in chain.rules.iter_mut().zip(&other.rules) {
                if nft::hides_match(rule) {
                    rule.clone_from(told);
                }
            }
        }
    }
}
