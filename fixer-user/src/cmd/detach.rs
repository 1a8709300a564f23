//! `fixer detach`: undo `fixer attach`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::{Outcome, checks};
use crate::{
    bpf::pin::Pins,
    cli,
    net::{links, qdisc},
    site::place,
};

/// Detaches from what was selected, and from what is gone.
pub fn run(args: &cli::Detach) -> Result<Outcome> {
    checks::privileges()?;
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
            let link = links.iter().find(|link| link.ifindex == pinned.ifindex);
            if let Some(link) = link
                && !args.all
                && !selection.takes(link)
            {
                continue;
            }
            netns.run(|| pins.detach(&pinned, link.map(|link| link.name.as_str())))??;
            let Some(link) = link else { continue };
            if pinned.mode() == crate::bpf::attach::Mode::Clsact {
                qdisc::remove_unused_clsact(&netns, link.ifindex)?;
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
