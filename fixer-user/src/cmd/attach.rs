//! `fixer attach`: attach and pin, so that the fix stays without any process.

use anyhow::{Context as _, Result, ensure};

use super::{Outcome, checks};
use crate::{
    bpf::{load::Config, pin::Pins},
    cli,
    net::{links, netns::NetNs},
    privileges,
    site::place,
};

/// Attaches to what was selected and is there, and pins it.
pub fn run(args: &cli::Attach) -> Result<Outcome> {
    checks::privileges(privileges::TO_PIN, &args.select, Some(&args.what))?;
    let mut found = Vec::new();
    for netns in checks::namespaces(&args.select)? {
        let pins = Pins::of(&netns)?;
        let links = links::list(&netns)
            .with_context(|| format!("cannot list the interfaces of '{netns}'"))?;
        checks::every_name_will_do(&args.select, &netns, &links)?;
        found.push((netns, pins, links));
    }
    // Nobody reads events yet; `WANTED` is shared with whoever comes to read them.
    let config = Config { events: 0, ..args.what.config(false, false) };
    let config = checks::proven(&args.what, config)?;
    for (netns, pins, links) in found {
        attach(args, &config, &netns, &pins, &links)?;
    }
    Ok(Outcome::Done)
}

fn attach(
    args: &cli::Attach,
    config: &Config,
    netns: &NetNs,
    pins: &Pins,
    links: &[links::Link],
) -> Result<()> {
    let selection = args.select.selection();
    let selected: Vec<_> = links.iter().filter(|link| selection.takes(link)).collect();
    ensure!(!selected.is_empty(), "no interface of '{netns}' is selected: nothing was attached");
    let outcome = pins.load(config).map_err(anyhow::Error::from).and_then(|mut object| {
        for link in selected {
            for hook in args.what.hook.each() {
                let target = (link.ifindex, link.name.as_str());
                let wish = args.what.attach_mode;
                let (replaced, mode) =
                    netns.run(|| pins.attach(&mut object, target, *hook, wish))??;
                let done = if replaced { "replaced at" } else { "attached to" };
                let place = place(netns, &link.name);
                println!("{done} {} of {place} ({mode})", hook.name());
            }
        }
        Ok(())
    });
    // Where nothing got attached, nothing is left either.
    pins.tidy()?;
    outcome
}
