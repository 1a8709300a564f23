//! Says what to do about a refusal of the kernel.

use std::{error::Error, io};

use aya::{
    programs::{ProgramError, ProgramType, TcError},
    sys::{BpfHelper, is_helper_supported, is_program_supported},
};
use caps::{CapSet, Capability};

/// What the programs cannot do without, and since when kernels have it.
const HELPERS: [(BpfHelper, &str, &str); 6] = [
    (BpfHelper::BPF_FUNC_skb_adjust_room, "bpf_skb_adjust_room", "4.13"),
    (BpfHelper::BPF_FUNC_skb_change_tail, "bpf_skb_change_tail", "4.9"),
    (BpfHelper::BPF_FUNC_skb_pull_data, "bpf_skb_pull_data", "4.9"),
    (BpfHelper::BPF_FUNC_skb_load_bytes, "bpf_skb_load_bytes", "4.5"),
    (BpfHelper::BPF_FUNC_skb_store_bytes, "bpf_skb_store_bytes", "4.1"),
    (BpfHelper::BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve", "5.8"),
];

/// A refusal of the kernel, with its cause and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{refusal}; {remedy}")]
pub struct Explained {
    refusal: String,
    remedy: String,
}

impl Explained {
    /// Explains an error of aya's by its errno, and by asking the kernel what it can do.
    pub fn new(error: impl Error + 'static) -> Self {
        let remedy = errno(&error)
            .and_then(remedy)
            .unwrap_or_else(|| "with -vv fixer says more of what the kernel said".to_owned());
        log::debug!("{}", chain(&error, usize::MAX));
        // A verifier's log is hundreds of lines, and its last one says why.
        Self { refusal: chain(&error, 240), remedy }
    }
}

fn remedy(errno: i32) -> Option<String> {
    match errno {
        libc::EPERM => missing_capabilities().or_else(|| {
            Some(
                "every capability is there, so a seccomp filter (of a container), kernel lockdown or \
                 a security module forbids it"
                    .to_owned(),
            )
        }),
        libc::EACCES => missing_capabilities().or_else(missing_feature),
        libc::ENOSYS => Some(
            "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL=y, CONFIG_NET_CLS_BPF and \
             CONFIG_NET_CLS_ACT=y"
                .to_owned(),
        ),
        libc::EINVAL | libc::ENOTSUP => missing_feature(),
        libc::ENOMEM => Some(
            "the kernel has no memory left for BPF; before 5.11 raise the limit: ulimit -l unlimited"
                .to_owned(),
        ),
        libc::EROFS => Some(
            "the BPF file system is mounted read-only; mount -o remount,rw /sys/fs/bpf".to_owned(),
        ),
        libc::EMFILE | libc::ENFILE => {
            Some("too many files are open; raise the limit: ulimit -n 4096".to_owned())
        }
        _ => None,
    }
}

/// The capabilities that loading and attaching need and this process lacks, as a remedy.
pub fn missing_capabilities() -> Option<String> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if has(Capability::CAP_SYS_ADMIN) && has(Capability::CAP_NET_ADMIN) {
        return None;
    }
    let needed = [Capability::CAP_BPF, Capability::CAP_PERFMON, Capability::CAP_NET_ADMIN];
    let lacking: Vec<_> = needed.into_iter().filter(|capability| !has(*capability)).collect();
    if lacking.is_empty() {
        return None;
    }
    let names: Vec<_> = lacking.iter().map(ToString::to_string).collect();
    Some(format!("run as root, or grant {}", names.join(" and ")))
}

fn missing_feature() -> Option<String> {
    if let Ok(false) = is_program_supported(ProgramType::SchedClassifier) {
        return Some(
            "this kernel has no BPF classifiers: it needs CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT=y"
                .to_owned(),
        );
    }
    let lacking = HELPERS.iter().find(|(helper, ..)| {
        matches!(is_helper_supported(ProgramType::SchedClassifier, *helper), Ok(false))
    });
    lacking.map(|(_, name, since)| {
        format!(
            "this kernel lacks {name}, which came with Linux {since}: fixer needs 5.10 or newer"
        )
    })
}

/// The errno at the bottom of an error.
pub fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        let of_system = os_error(error);
        if let Some(errno) = of_system.and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        next = match of_system.and_then(io::Error::get_ref) {
            // It is not the source of what it is wrapped into, but that itself.
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The system's error that this one is. Some errors of the loader stand for it, and are not its effect.
fn os_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let program = error.downcast_ref::<ProgramError>();
    let tc = match program {
        Some(ProgramError::IOError(error)) => return Some(error),
        Some(ProgramError::TcError(error)) => Some(error),
        _ => error.downcast_ref::<TcError>(),
    };
    match tc {
        Some(TcError::IoError(error)) => Some(error),
        _ => error.downcast_ref::<io::Error>(),
    }
}

/// An error and its sources on one line. Of a text of several lines, the last that says something.
fn chain(error: &(dyn Error + 'static), most: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let text = if text.len() > most { last_words(&text, most) } else { text };
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

fn last_words(text: &str, most: usize) -> String {
    let first = text.lines().next().unwrap_or_default();
    let last = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !is_statistics(line))
        .unwrap_or_default();
    let cut = |line: &str| line.chars().take(most).collect::<String>();
    format!("{} … {}", cut(first), cut(last))
}

/// The verifier ends its log with what the verification cost.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time", "stack depth"].iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_shrinks_to_its_first_and_last_words() {
        let log =
            format!("refused: 0: R1=ctx\n{}invalid access\nprocessed 9 insns\n", "x\n".repeat(300));
        assert_eq!(last_words(&log, 240), "refused: 0: R1=ctx … invalid access");
    }

    #[test]
    fn the_errno_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(errno(&error), Some(libc::EPERM));
        assert_eq!(errno(&Outer(io::Error::other("plain"))), None);
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let of_tc = || ProgramError::from(TcError::from(gone()));
        for error in [of_tc(), gone().into(), io::Error::other(of_tc()).into()] {
            assert_eq!(errno(&error), Some(libc::ENODEV), "{error:?}");
        }
    }
}
