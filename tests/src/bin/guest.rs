//! What a guest in a machine of its own runs: a client that verifies every checksum, told over the console
//! when to ask. See `fixer_tests::scenario::vhost_net`.

use std::io::{self, BufRead as _};

use anyhow::Result;
use fixer_tests::scenario::{
    story,
    vhost_net::{ANSWER, ASK, ASK_IN_VAIN, INTERFACE, MAC, PATIENCE},
};
use fixer_user::{lab::strict, net::netns::NetNs};

fn main() -> Result<()> {
    let netns = NetNs::current()?;
    println!("{ANSWER}ready");
    for line in io::stdin().lock().lines() {
        let judge = match line?.trim() {
            ASK => story::cure,
            ASK_IN_VAIN => story::fault,
            _ => continue,
        };
        let outcome = strict::ask(&netns, INTERFACE, MAC, PATIENCE)?;
        match judge(&outcome) {
            Ok(sentence) => println!("{ANSWER}ok {sentence}"),
            Err(error) => println!("{ANSWER}not so: {error:#}"),
        }
    }
    Ok(())
}
