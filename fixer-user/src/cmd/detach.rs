//! `fixer detach`: undo `fixer attach`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::{Outcome, checks};
use crate::{
    bpf::pin::Pins,
    cli,
    net::{links, qdisc},
    privileges,
    site::place,
};

/// Detaches from what was selected, and from what is gone.
pub fn run(args: &cli::Detach) -> Result<Outcome> {
    checks::privileges(privileges::TO_INSPECT, &args.select, None)?;
    let selection = args.select.selection();
    let mut unknown: BTreeSet<&str> =
        selection.patterns.iter().filter(|pattern| pattern.is_plain()).map(|p| p.given()).collect();
    let mut count = 0;
    for netns in checks::namespaces(&args.select)? {
        let pins = Pins::of(&netns)?;
        let links = links::list(&netns)
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        for pinned in pins.list()? {
            if !args.hook.each().contains(&pinned.hook) {
                continue;
            }
            let Some(link) = links.iter().find(|link| link.ifindex == pinned.ifindex) else {
                pins.forget(&pinned)?;
                continue;
            };
            if !args.all && !selection.means(link) {
                continue;
            }
            if !netns.run(|| pins.is_alive(&pinned, &link.name))?? {
                pins.forget(&pinned)?;
                continue;
            }
            netns.run(|| pins.detach(&pinned, &link.name))??;
            if pinned.made_qdisc() {
                qdisc::remove_unused_clsact(&netns, link.ifindex).with_context(|| {
                    format!("cannot remove the clsact qdisc of {}", place(&netns, &link.name))
                })?;
            }
            println!("detached from {} of {}", pinned.hook.name(), place(&netns, &link.name));
            unknown.remove(link.name.as_str());
            count += 1;
        }
        pins.tidy()?;
    }
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.into_iter().collect();
        bail!("fixer is not attached to {}; `fixer status` shows where it is", names.join(", "));
    }
    if count == 0 {
        println!("nothing was attached");
    }
    Ok(Outcome::Done)
}
