//! The program in the running kernel, once under every setting, and what it makes of a trial.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use fixer_common::{
    abi::Hook,
    verdict::{self, TABLE},
};
use fixer_user::bpf::{
    load::{Config, Object},
    ring::Ring,
};
use tokio::runtime::Runtime;

use super::{
    reference::{Answer, Checksum},
    report::{self, MOST_CAPTURED, Report},
    setting::{SETTINGS, Setting},
    test_run::{Ran, test_run},
    trial::{Kind, Trial},
};
use crate::kernel::require_root;

/// `TC_ACT_UNSPEC`: the other programs and filters go on.
const GO_ON: u32 = u32::MAX;

/// What one side says about a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict that was counted, at the hook where it belongs.
    pub verdict: Option<&'static str>,
    /// The packet as it came out, and what the program returned.
    pub ran: Ran,
    /// The event about it.
    pub report: Option<Report>,
}

/// The loaded objects.
pub struct Bench {
    objects: Vec<Loaded>,
    /// The longest frame that the kernel takes.
    longest: usize,
    /// Whether the kernel can give a packet a sum of all its bytes. Older ones cannot.
    takes_summed: bool,
    /// Ring buffers are waited for on a runtime, though nobody waits for one here.
    _runtime: Runtime,
}

struct Loaded {
    setting: &'static str,
    object: Object,
    ring: Ring,
    counts: Counts,
}

/// Packets by hook and verdict.
type Counts = [[u64; TABLE.len()]; 2];

impl Bench {
    /// Loads the object under every setting, and finds out what the kernel takes.
    pub fn new() -> Result<Self> {
        require_root()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let objects = SETTINGS.iter().map(Loaded::new).collect::<Result<_>>()?;
        drop(entered);
        let mut bench = Self { objects, longest: 0, takes_summed: false, _runtime: runtime };
        let mut takes = |len, kind| {
            let frame = vec![0; len];
            let setting = &SETTINGS[0];
            bench.ran(&Trial { setting, hook: Hook::Egress, kind, frame }).is_ok()
        };
        let takes_summed = takes(SHORTEST, Kind::Summed);
        let mut tried = (SHORTEST, MOST + 1);
        while tried.0 + 1 < tried.1 {
            let middle = tried.0.midpoint(tried.1);
            if takes(middle, Kind::Plain) { tried.0 = middle } else { tried.1 = middle }
        }
        Ok(Self { longest: tried.0, takes_summed, ..bench })
    }

    /// The longest frame that the kernel takes, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The trial as the kernel takes it, or `None` if it does not.
    pub fn fit(&self, mut trial: Trial) -> Option<Trial> {
        let network_header = match trial.frame.get(12..14) {
            Some([0x08, 0x00]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 0,
        };
        if !(SHORTEST + network_header..=self.longest).contains(&trial.frame.len()) {
            return None;
        }
        // A short frame is padded for the time of the fix. The kernel then forgets the sum of the
        // whole packet, which is right; but this command looks at what it has forgotten. And of a
        // tag it believes at egress that the sum counts it in, which holds for no packet there.
        let is_steady = trial.frame.len() >= NEVER_PADDED && !is_tagged(&trial.frame);
        if trial.kind == Kind::Summed && !(self.takes_summed && is_steady) {
            trial.kind = Kind::Plain;
        }
        Some(trial)
    }

    /// What the program makes of it.
    pub fn run(&mut self, trial: &Trial) -> Result<Outcome> {
        let ran = self.ran(trial).context("the kernel refuses");
        let loaded = self.loaded(trial.setting)?;
        let verdict = loaded.counted(trial.hook);
        let report = report::take(&mut loaded.ring);
        Ok(Outcome { ran: ran?, verdict: verdict?, report: report? })
    }

    fn ran(&mut self, trial: &Trial) -> Result<Ran> {
        let loaded = self.loaded(trial.setting)?;
        let program = loaded.object.classifier(trial.hook)?.fd()?;
        Ok(test_run(program.as_fd(), &trial.frame, trial.kind)?)
    }

    fn loaded(&mut self, setting: &Setting) -> Result<&mut Loaded> {
        let is_it = |loaded: &&mut Loaded| loaded.setting == setting.name;
        self.objects.iter_mut().find(is_it).with_context(|| format!("{} not loaded", setting.name))
    }
}

/// The shortest frame that the kernel takes: an Ethernet header. Behind it there must be room for the
/// network header that its type announces.
const SHORTEST: usize = 14;

/// As long as the program's own limits need it, and a little longer.
const MOST: usize = 10_000;

/// Frames of this length are not padded for a fix, whatever headers and tags they have.
const NEVER_PADDED: usize = 256;

fn is_tagged(frame: &[u8]) -> bool {
    matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]))
}

/// What the reference wants to see of a trial here.
///
/// Popping and pushing leaves the outer tag of a mended frame beside it, where this command does not
/// show it. `table_over_veth` sees such frames as a whole.
pub fn shown(trial: &Trial) -> Outcome {
    let Answer { verdict, mut frame, tags, mut checksum } = trial.answer();
    let mut tag = None;
    if verdict == Some("fixed") && tags > 0 {
        tag = frame[12..].first_chunk().copied();
        frame.drain(12..16);
        checksum = checksum.map(|field| Checksum { at: field.at - 4, ..field });
    }
    let captured = frame.len().min(MOST_CAPTURED);
    let report = verdict.map(|verdict| Report {
        verdict,
        hook: trial.hook,
        frame_len: frame.len(),
        frame: frame[..captured].to_vec(),
        checksum,
        tag,
    });
    Outcome { verdict, ran: Ran { frame, returned: GO_ON }, report }
}

impl Loaded {
    fn new(setting: &'static Setting) -> Result<Self> {
        let config = Config {
            rules: setting.program_rules(),
            observe_only: setting.observe_only,
            shrink_twice: setting.shrink_twice,
            events: verdict::ALL,
            ..Config::default()
        };
        let mut object = Object::load(&config).with_context(|| {
            format!("the kernel does not take the object under {}", setting.name)
        })?;
        let ring = object.take_ring()?;
        Ok(Self { setting: setting.name, object, ring, counts: Counts::default() })
    }

    /// The verdict that was counted since the last look.
    fn counted(&mut self, hook: Hook) -> Result<Option<&'static str>> {
        let mut counts = Counts::default();
        for row in self.object.counters()? {
            for (sum, (_, count)) in counts[row.hook as usize].iter_mut().zip(row.counts()) {
                *sum += count;
            }
        }
        let before = std::mem::replace(&mut self.counts, counts);
        let mut found = None;
        for at in [Hook::Ingress, Hook::Egress] {
            let pairs = counts[at as usize].iter().zip(before[at as usize]);
            for (row, (after, before)) in TABLE.iter().zip(pairs) {
                match after - before {
                    0 => {}
                    1 if found.is_none() && at == hook => found = Some(row.verdict.name()),
                    _ => found = Some("more than one, or at the wrong hook"),
                }
            }
        }
        Ok(found)
    }
}
