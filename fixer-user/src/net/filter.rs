//! The filters on clsact qdiscs: found, put there and taken off. All of it is about interfaces of the
//! calling thread's namespace.
//!
//! A filter outlives whoever made it, and is no object that could be pinned. So it carries in its handle
//! what has to be known to take it off again, and it appears and goes in one system call together with
//! the qdisc that was made for it: a process can be killed at any moment, and nothing is left unknown.

use std::io;

use fixer_common::abi::Hook;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE,
};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    tc::{
        TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
        TcOption,
    },
};

use super::{netlink::ask, turn::Turn};

/// What the handle of a filter says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The version of the ABI that its program speaks.
    pub version: u16,
    /// It is to stay: `fixer attach` put it there.
    pub stays: bool,
    /// The clsact qdisc was made for fixer, and goes with the last filter.
    pub made_qdisc: bool,
}

impl Tag {
    /// What tells our handles from others.
    const OURS: u32 = 0xf1e0_0000;
    const VERSION: u32 = 0x000f_fff0;
    const STAYS: u32 = 2;
    const MADE: u32 = 1;

    /// The handle.
    pub fn handle(self) -> u32 {
        let Self { version, stays, made_qdisc } = self;
        let stays = if stays { Self::STAYS } else { 0 };
        let made = if made_qdisc { Self::MADE } else { 0 };
        Self::OURS | (u32::from(version) << 4) | stays | made
    }

    /// The handle of one of ours, understood.
    pub fn of(handle: u32) -> Option<Self> {
        (handle & !(Self::VERSION | Self::STAYS | Self::MADE) == Self::OURS).then_some(Self {
            version: ((handle & Self::VERSION) >> 4) as u16,
            stays: handle & Self::STAYS != 0,
            made_qdisc: handle & Self::MADE != 0,
        })
    }
}

/// A BPF filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its priority.
    pub priority: u16,
    /// Its handle within the priority.
    pub handle: u32,
    /// The name that was given with its program.
    pub name: String,
    /// Its program's id.
    pub program: u32,
}

impl Filter {
    /// What its handle says, if it is one of ours.
    pub fn tag(&self) -> Option<Tag> {
        Tag::of(self.handle)
    }
}

/// A program to put on a hook: its descriptor, and its name.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The number of an open descriptor.
    pub fd: i32,
    /// Its name.
    pub name: &'a str,
}

/// The BPF filters at a hook of an interface. Where there is no qdisc or no interface, there is none.
pub fn filters(ifindex: u32, hook: Hook) -> io::Result<Vec<Filter>> {
    Ok(every_filter(ifindex, hook)?.0.iter().filter_map(understood).collect())
}

/// Puts a program on a hook, on a qdisc that is made for it if there is none, before the filters of
/// others as far as there is room: one that ends the chain must not hide replies from us.
pub fn add(
    ifindex: u32,
    hook: Hook,
    program: Program<'_>,
    version: u16,
    stays: bool,
) -> io::Result<Filter> {
    let is_new = !has_clsact(ifindex)?;
    let there = [Hook::Egress, Hook::Ingress].map(|hook| filters(ifindex, hook));
    let there: Vec<_> = there.into_iter().collect::<io::Result<Vec<_>>>()?.concat();
    let is_made = |filter: &Filter| filter.tag().is_some_and(|tag| tag.made_qdisc);
    let tag = Tag { version, stays, made_qdisc: is_new || there.iter().any(is_made) };
    let taken: Vec<u16> = every_filter(ifindex, hook)?.0.iter().map(priority).collect();
    let priority = (1..=u16::MAX).find(|priority| !taken.contains(priority));
    let priority = priority.ok_or_else(|| io::Error::other("every priority is taken"))?;
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let filter = (flags, put(ifindex, hook, program, priority, tag.handle()));
    if is_new {
        let qdisc = (flags, Message::NewQueueDiscipline(clsact(ifindex)));
        let outcomes = ask([qdisc, filter])?.outcomes;
        let [made, put] = <[_; 2]>::try_from(outcomes).map_err(|_| no_answer())?;
        match (made, put) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(error)) => {
                // The refusal is what matters; that this fails too would only hide it.
                let _ = remove_unused_clsact(ifindex);
                return Err(error);
            }
            (Err(error), Ok(())) => {
                // Somebody made the qdisc just now: the filter says that we did.
                let handle = tag.handle();
                remove_filter(ifindex, hook, priority, handle)?;
                return Err(error);
            }
            (Err(error), Err(_)) => return Err(error),
        }
    } else {
        ask([filter])?.ok()?;
    }
    let ours = |filter: &Filter| (filter.priority, filter.handle) == (priority, tag.handle());
    let ours = filters(ifindex, hook)?.into_iter().find(ours);
    ours.ok_or_else(|| io::Error::other("the filter is gone already"))
}

fn no_answer() -> io::Error {
    io::Error::other("the kernel did not answer every request")
}

/// Replaces the program of a filter. The kernel does it in one step: a packet sees either.
pub fn replace(ifindex: u32, hook: Hook, filter: &Filter, program: Program<'_>) -> io::Result<()> {
    let message = put(ifindex, hook, program, filter.priority, filter.handle);
    ask([(NLM_F_ACK | NLM_F_REPLACE, message)])?.ok().map(drop)
}

/// Takes a filter off. With the last one goes the qdisc that was made for it, if nobody else can be
/// putting one there meanwhile. That it is gone already is no error: what is in its place is another's.
pub fn remove(ifindex: u32, hook: Hook, filter: &Filter, turn: &Turn) -> io::Result<()> {
    if !filters(ifindex, hook)?.contains(filter) {
        return Ok(());
    }
    let is_made = filter.tag().is_some_and(|tag| tag.made_qdisc);
    if is_made && turn.is_ours() && count(ifindex)? == 1 {
        // The qdisc takes its filters along: nobody can find one without the other.
        let outcome = ask([(NLM_F_ACK, Message::DelQueueDiscipline(clsact(ifindex)))]);
        return outcome?.ok().map(drop).or_else(unless_gone);
    }
    remove_filter(ifindex, hook, filter.priority, filter.handle)
}

fn remove_filter(ifindex: u32, hook: Hook, priority: u16, handle: u32) -> io::Result<()> {
    let mut message = at(ifindex, hook);
    message.header.handle = handle.into();
    message.header.info = info(priority);
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    ask([(NLM_F_ACK, Message::DelTrafficFilter(message))])?.ok().map(drop).or_else(unless_gone)
}

/// Removes the clsact qdisc of an interface if no filter is on it. That there is none, or no interface,
/// is no error.
fn remove_unused_clsact(ifindex: u32) -> io::Result<()> {
    if count(ifindex)? > 0 {
        return Ok(());
    }
    let message = Message::DelQueueDiscipline(clsact(ifindex));
    ask([(NLM_F_ACK, message)])?.ok().map(drop).or_else(unless_gone)
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENOENT | libc::EINVAL) => Ok(()),
        _ => Err(error),
    }
}

/// Whether the interface has a clsact qdisc. An ingress qdisc has its place: that would take a filter
/// for egress, and show it the packets that come in.
fn has_clsact(ifindex: u32) -> io::Result<bool> {
    let mut message = clsact(ifindex);
    message.attributes.clear();
    // The kernel tells it to those who listen for changes; who asked hears it as an echo.
    let answer = ask([(NLM_F_ACK | NLM_F_ECHO, Message::GetQueueDiscipline(message))])?;
    let mut qdiscs = answer.told.iter().filter_map(|message| match message {
        Message::NewQueueDiscipline(qdisc) => Some(qdisc),
        _ => None,
    });
    let Some(qdisc) = qdiscs.next() else { return Ok(false) };
    if qdisc.attributes.contains(&TcAttribute::Kind("ingress".to_owned())) {
        return Err(io::Error::other(
            "an ingress qdisc has the place of clsact (remove it with `tc qdisc del dev INTERFACE \
             ingress`, or attach by tcx)",
        ));
    }
    Ok(true)
}

/// How many filters of whatever kind are on the qdisc.
fn count(ifindex: u32) -> io::Result<usize> {
    let is_filter = |message: &&TcMessage| u32::from(message.header.handle) != 0;
    [Hook::Egress, Hook::Ingress].into_iter().try_fold(0, |sum, hook| {
        let (read, unread) = every_filter(ifindex, hook)?;
        Ok(sum + read.iter().filter(is_filter).count() + unread)
    })
}

/// The filters of whatever kind at a hook, and how many there are that cannot be read.
fn every_filter(ifindex: u32, hook: Hook) -> io::Result<(Vec<TcMessage>, usize)> {
    let dump = (NLM_F_DUMP, Message::GetTrafficFilter(at(ifindex, hook)));
    let (told, unread) = ask([dump])?.counted()?;
    let filters = told.into_iter().filter_map(|message| match message {
        Message::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    Ok((filters.collect(), unread))
}

fn priority(message: &TcMessage) -> u16 {
    (message.header.info >> 16) as u16
}

fn at(ifindex: u32, hook: Hook) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    let minor = match hook {
        Hook::Egress => TcHandle::MIN_EGRESS,
        Hook::Ingress => TcHandle::MIN_INGRESS,
    };
    message.header.parent = TcHandle { major: u16::MAX, minor };
    message
}

fn clsact(ifindex: u32) -> TcMessage {
    let handle = TcHandle { major: u16::MAX, minor: 0 };
    let header =
        TcHeader { index: ifindex as i32, handle, parent: TcHandle::CLSACT, ..TcHeader::default() };
    TcMessage::from_parts(header, vec![TcAttribute::Kind("clsact".to_owned())])
}

/// A request to put a program on a hook. `TCA_BPF_FLAG_ACT_DIRECT`: what it returns is the action.
fn put(ifindex: u32, hook: Hook, program: Program<'_>, priority: u16, handle: u32) -> Message {
    let mut message = at(ifindex, hook);
    message.header.handle = handle.into();
    message.header.info = info(priority);
    let options = [
        TcFilterBpfOption::ProgFd(program.fd as u32),
        TcFilterBpfOption::ProgName(program.name.to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes = vec![
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.into_iter().map(TcOption::Bpf).collect()),
    ];
    Message::NewTrafficFilter(message)
}

/// A filter for every protocol, with this priority.
fn info(priority: u16) -> u32 {
    (u32::from(priority) << 16) | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn understood(message: &TcMessage) -> Option<Filter> {
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut program, mut name) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(given)) => name = Some(given.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(given)) => program = Some(*given),
            _ => {}
        }
    }
    let handle = message.header.handle.into();
    Some(Filter { priority: priority(message), handle, name: name?, program: program? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_what_was_put_into_it() {
        for version in [0, 2, u16::MAX] {
            for (stays, made_qdisc) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let tag = Tag { version, stays, made_qdisc };
                assert_eq!(Tag::of(tag.handle()), Some(tag));
            }
        }
        for other in [0, 1, 0x8000_0001, 0xf1e0_0004, 0xf1f0_0020] {
            assert_eq!(Tag::of(other), None, "{other:x}");
        }
    }
}
