//! What every verb that attaches makes sure of, before it touches an interface.

use std::{collections::BTreeSet, io};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    bpf::{
        load::Config,
        pin::Pins,
        resident::{Resident, residents},
    },
    cli::{Hooks, Run, Select, What},
    names::shown,
    net::{
        links::{self, Link},
        named::{Choice, named},
        netns::{NetNs, Spec},
        select::{Pattern, Selection},
        turn::{LONG, Turn},
    },
    privileges::{self, Act},
    proof::{Proof, prove},
    say::say,
    site::{NoEthernet, place},
};

/// Refuses to start what would fail half-way for want of privileges.
pub fn privileges(acts: &[Act], select: &Select, what: Option<&What>) -> Result<()> {
    let mut acts = acts.to_vec();
    acts.extend((!select.netns.is_empty()).then_some(Act::Enter));
    acts.extend(what.is_some_and(What::needs_proof).then_some(Act::SelfTest));
    Ok(privileges::require(&acts)?)
}

/// The namespaces that are meant and there, each once by whatever names. If there is none, that is a
/// mistake.
pub fn namespaces(select: &Select) -> Result<Vec<NetNs>> {
    let namespaces = namespaces_now(select)?;
    if namespaces.is_empty() {
        let named = named()?;
        let names: Vec<_> = named.iter().map(Spec::given).take(20).collect();
        let there = match names[..] {
            [] => "`ip netns` has named none".to_owned(),
            _ => format!("there are: {}", names.join(", ")),
        };
        bail!("no network namespace matches {}; {there}", quoted(select.globs()));
    }
    Ok(namespaces)
}

/// Globs, as messages name them.
pub fn quoted<'a>(globs: impl Iterator<Item = &'a Pattern>) -> String {
    let globs: Vec<_> = globs.map(|glob| format!("'{}'", glob.given())).collect();
    globs.join(" or ")
}

/// The namespaces that are meant and there, each once by whatever names. A glob need not find any.
pub fn namespaces_now(select: &Select) -> Result<Vec<NetNs>> {
    if select.netns.is_empty() {
        return Ok(vec![NetNs::current().context("cannot open our own network namespace")?]);
    }
    let mut found = Vec::new();
    for choice in &select.netns {
        if let Choice::One(spec) = choice {
            found.push(NetNs::open(spec)?);
        }
    }
    // Who is named has its own name, whatever globs take it too.
    for spec in matching(select)? {
        match NetNs::open(&spec) {
            // It was deleted while we looked.
            Err(_) if spec.present().is_none() => {}
            netns => found.push(netns?),
        }
    }
    let (mut namespaces, mut seen) = (Vec::new(), BTreeSet::new());
    for netns in found {
        let identity = netns.identity().context("cannot tell network namespaces apart")?;
        if seen.insert(identity) {
            namespaces.push(netns);
        }
    }
    Ok(namespaces)
}

/// The namespaces that are there and that a glob takes.
pub fn matching(select: &Select) -> io::Result<Vec<Spec>> {
    if select.globs().next().is_none() {
        return Ok(Vec::new());
    }
    let is_taken = |spec: &Spec| {
        let name = spec.name().unwrap_or_default();
        select.globs().any(|glob| glob.is_match(name)) && spec.present().is_some()
    };
    Ok(named()?.into_iter().filter(is_taken).collect())
}

/// Waits until nobody else changes what is attached in a namespace, as long as any command does, and says
/// if somebody was killed at that. Who has begun has other things to do, and waits for a moment only.
pub fn wait_for_others(netns: &NetNs) -> Result<()> {
    let turn = netns.run(|| Turn::wait(LONG)).flatten();
    let turn = turn.with_context(|| format!("cannot lock the network namespace '{netns}'"))?;
    tell_halfway(netns, &turn)
}

/// Says how far a command came that was killed between two hooks, if one was.
pub fn tell_halfway(netns: &NetNs, turn: &Turn) -> Result<()> {
    // Whose pins cannot be trusted, or not be seen, tell nothing.
    let mut every = Pins::every(netns).unwrap_or_default();
    every.retain(|pins| pins.halfway().is_some());
    if every.is_empty() {
        return Ok(());
    }
    let cannot = || format!("cannot look at what is attached in '{netns}'");
    let links = links::list(netns).with_context(cannot)?;
    let names = links.iter().map(|link| (link.ifindex, link.name.as_str()));
    let there = netns.run(|| residents(names)).flatten().with_context(cannot)?;
    for pins in every {
        if let Some(halfway) = pins.halfway() {
            let told = halfway.told(pins.of_these(&there), turn.is_ours());
            say(format_args!("{}{told}", within(netns)));
        }
    }
    Ok(())
}

/// The beginning of a line about a namespace that is not our own.
fn within(netns: &NetNs) -> String {
    if netns.spec().is_some() { format!("in '{netns}' ") } else { String::new() }
}

/// What is attached in a namespace: to the interfaces that are selected, or to any if none is.
pub fn attached(
    select: &Select,
    hooks: Hooks,
    netns: &NetNs,
    look: impl FnOnce(&[(u32, &str)]) -> io::Result<Vec<Resident>> + Send,
) -> Result<Vec<Resident>> {
    let selection = select.selection();
    let is_all = !selection.auto && selection.patterns.is_empty();
    let mut links =
        links::list(netns).with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
    links.retain(|link| is_all || selection.means(link));
    let names: Vec<_> = links.iter().map(|link| (link.ifindex, link.name.as_str())).collect();
    let mut found = netns
        .run(|| look(&names))
        .flatten()
        .with_context(|| format!("cannot look at the programs in '{netns}'"))?;
    found.retain(|there| hooks.each().contains(&there.hook));
    Ok(found)
}

/// The configuration with what the fix needs on this kernel. Refuses where the fix does not hold,
/// unless told not to look; who only observes does not need it. Unlooked at, a kernel may need the
/// second shrink, which does no harm where it is not needed.
pub fn proven(what: &What, config: Config) -> Result<Config> {
    if !what.needs_proof() {
        return Ok(Config { shrink_twice: !what.observe_only, ..config });
    }
    let advice = "no interface was touched; --skip-selftest attaches all the same";
    let proof = prove(what.attach_mode)
        .with_context(|| format!("cannot prove that the fix works on this kernel ({advice})"))?;
    match proof.failure() {
        None => Ok(Config { shrink_twice: proof.shrink_twice, ..config }),
        Some(finding) => bail!(
            "the fix does not work on this kernel ({advice}): not true that {}{}; \
             `fixer selftest` tells more",
            finding.trial,
            finding.seen.as_ref().map(|seen| format!(", {seen}")).unwrap_or_default()
        ),
    }
}

/// The same configuration, and whether it is known that the programs may fix. Who observes and can be told
/// to fix later has to find out now: once it is attached it may not try any more.
pub fn foreseen(args: &Run, config: Config) -> (Config, bool) {
    let What { observe_only, skip_selftest, attach_mode, .. } = args.what;
    if !observe_only {
        return (config, true);
    }
    let may_change = args.config.is_some() && !skip_selftest;
    let proof = may_change.then(|| prove(attach_mode).ok()).flatten();
    match proof.filter(Proof::holds) {
        Some(Proof { shrink_twice, .. }) => (Config { shrink_twice, ..config }, true),
        None => (config, false),
    }
}

/// An interface that was named and is not there, or is one whose packets no program of ours can read,
/// is a mistake, found before anything is attached.
pub fn every_name_will_do(select: &Select, netns: &NetNs, links: &[Link]) -> Result<()> {
    let selection = select.selection();
    for link in links {
        if let Some(kind) = selection.mistakes(link) {
            bail!(NoEthernet { place: place(netns, &link.name), kind: kind.to_owned() });
        }
    }
    are_there(&selection, links.iter(), &format!("'{netns}'"))
}

/// Fails if a plain name is none of these interfaces'.
fn are_there<'a>(
    selection: &Selection,
    links: impl Iterator<Item = &'a Link> + Clone,
    place: &str,
) -> Result<()> {
    let names = links.map(|link| link.name.as_str());
    let missing: Vec<_> = selection.missing(names.clone()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let there: Vec<_> = names.take(20).map(shown).collect();
    bail!(
        "no interface '{}' in the network namespace {place}; there are: {}",
        missing.join("', '"),
        there.join(", ")
    );
}

/// An interface that was named and is in none of the namespaces is a mistake: that nothing is attached to it
/// would be true, and no answer.
pub fn every_name_is_somewhere(select: &Select, namespaces: &[NetNs]) -> Result<()> {
    let selection = select.selection();
    let list = |netns: &NetNs| {
        links::list(netns).with_context(|| format!("cannot list the interfaces of '{netns}'"))
    };
    let lists = namespaces.iter().map(list).collect::<Result<Vec<_>>>()?;
    let labels: Vec<_> = namespaces.iter().map(|netns| format!("'{netns}'")).collect();
    are_there(&selection, lists.iter().flatten(), &labels.join(" or "))
}

/// Every interface and every namespace takes some files, and the usual limit is there for programs that
/// use select(2). Where it stays as it is, what is too much is told.
pub fn open_many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
