//! Loads the object with a configuration.

use std::{
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::Array,
    programs::{ProgramError, SchedClassifier},
};
use fixer_common::{
    abi::{
        Hook,
        config::{self, CONFIG},
        map, program,
    },
    rule::{self, Rule},
    verdict,
};
use zerocopy::IntoBytes as _;

use super::{OBJECT, remedy::Explained, ring::Losses};
use crate::net::claim::Claim;

/// What a program is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which packets are ours; at most [`rule::MOST`] rules.
    pub rules: Vec<Rule>,
    /// Count and report, and change nothing.
    pub observe_only: bool,
    /// Shrink twice, where [`prove`](crate::proof::prove) found that one shrink does not do.
    pub shrink_twice: bool,
    /// The verdicts that make an event, as a set of [`Verdict::bit`](verdict::Verdict::bit)s.
    pub events: u32,
    /// Let the programs write log lines for developers.
    pub log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: vec![Rule::DHCP],
            observe_only: false,
            shrink_twice: false,
            events: verdict::NOTABLE,
            log: false,
        }
    }
}

/// The object did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// More rules than a program holds.
    #[error("{0} rules are more than a program holds: give at most {most}", most = rule::MOST)]
    TooManyRules(usize),
    /// The kernel or the object's reader refused.
    #[error("cannot load the eBPF programs: {0}")]
    Refused(#[from] Explained),
    /// The object lacks something that this loader expects in it.
    #[error("the eBPF object has no {0}: it was built for another version of fixer")]
    Lacks(&'static str),
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Refused(Explained::new(error))
    }
}

impl From<ProgramError> for LoadError {
    fn from(error: ProgramError) -> Self {
        Self::Refused(Explained::new(error))
    }
}

/// Who loads whatever is not pinned. aya reads all of the kernel's types with every loader that it makes,
/// which takes longer than anything else here, so one is made for all.
static LOADER: LazyLock<Mutex<EbpfLoader<'static>>> = LazyLock::new(|| Mutex::new(loader()));

const LOG_NOTHING: u8 = 0;
const LOG_DEBUG: u8 = log::Level::Debug as u8;

fn loader() -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    // Nothing in the object depends on the kernel's types.
    loader.verifier_log_level(aya::VerifierLogLevel::VERBOSE).btf(None);
    loader
}

/// The same bytes, for as long as the process lives: a loader that is used again asks for that. There
/// are no more of them than different configurations.
fn kept(bytes: &[u8]) -> &'static [u8] {
    static KEPT: Mutex<Vec<&'static [u8]>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = kept.iter().find(|known| **known == bytes) {
        return known;
    }
    let new: &'static [u8] = Box::leak(bytes.into());
    kept.push(new);
    new
}

/// A loaded object: its programs and maps, gone when this is dropped.
pub struct Object {
    pub(super) ebpf: Ebpf,
    /// Forwards the programs' log lines to the `log` crate.
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// What tells others that the programs are in use.
    pub(super) claims: Vec<Claim>,
    /// How many events were lost, once somebody reads them.
    pub(super) losses: Option<Arc<Losses>>,
}

impl Object {
    /// Makes the maps. A program is loaded when it is asked for first: most hosts need one of the two,
    /// and the verifier takes its time for each.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        Self::load_with(OBJECT, config, None)
    }

    /// The same from another object than the one that `fixer` carries.
    pub fn load_from(object: &[u8], config: &Config) -> Result<Self, LoadError> {
        Self::load_with(object, config, None)
    }

    /// The same with every map pinned in a directory of the BPF file system, or taken from there.
    pub(super) fn load_pinned(config: &Config, dir: &Path) -> Result<Self, LoadError> {
        Self::load_with(OBJECT, config, Some(dir))
    }

    fn load_with(object: &[u8], config: &Config, pins: Option<&Path>) -> Result<Self, LoadError> {
        let rules = config::Config::new(&config.rules)
            .ok_or(LoadError::TooManyRules(config.rules.len()))?;
        let baked = config::Config {
            observe_only: config.observe_only.into(),
            shrink_twice: config.shrink_twice.into(),
            ..rules
        };
        let (baked, level) =
            (kept(baked.as_bytes()), if config.log { &LOG_DEBUG } else { &LOG_NOTHING });
        let load = |loader: &mut EbpfLoader<'static>| {
            loader.override_global(CONFIG, baked, true);
            loader.override_global("AYA_LOG_LEVEL", level, true).load(object)
        };
        let ebpf = match pins {
            None => load(&mut LOADER.lock().unwrap_or_else(PoisonError::into_inner)),
            Some(dir) => {
                let mut loader = loader();
                for name in map::ALL {
                    loader.map_pin_path(name, dir.join(name));
                }
                load(&mut loader)
            }
        };
        let mut object = Self { ebpf: ebpf?, logger: None, claims: Vec::new(), losses: None };
        // Who reads the events of pinned maps may want others, and chooses them itself.
        if pins.is_none() {
            object.set_events(config.events)?;
        }
        if config.log {
            object.logger = aya_log::EbpfLogger::init(&mut object.ebpf).ok();
        }
        Ok(object)
    }

    /// Chooses the verdicts that make an event, as a set of bits.
    pub fn set_events(&mut self, verdicts: u32) -> Result<(), LoadError> {
        let wanted = self.ebpf.map_mut(map::WANTED).ok_or(LoadError::Lacks(map::WANTED))?;
        let set = Array::try_from(wanted).and_then(|mut wanted| wanted.set(0, verdicts, 0));
        set.map_err(|error| EbpfError::from(error).into())
    }

    /// The program for a hook, loaded.
    pub fn classifier(&mut self, hook: Hook) -> Result<&mut SchedClassifier, LoadError> {
        let name = Self::program_name(hook);
        let program = self.ebpf.program_mut(name).ok_or(LoadError::Lacks(name))?;
        let classifier: &mut SchedClassifier =
            program.try_into().map_err(|_| LoadError::Lacks(name))?;
        if classifier.fd().is_err() {
            classifier.load()?;
        }
        Ok(classifier)
    }

    /// The ids of the programs for these hooks, loaded.
    pub fn programs(&mut self, hooks: &[Hook]) -> Result<Vec<u32>, LoadError> {
        hooks.iter().map(|hook| Ok(self.classifier(*hook)?.info()?.id())).collect()
    }

    /// The name of the program for a hook.
    pub(super) const fn program_name(hook: Hook) -> &'static str {
        match hook {
            Hook::Egress => program::EGRESS,
            Hook::Ingress => program::INGRESS,
        }
    }

    /// Passes on the log lines that the programs wrote since the last call.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }
}
