//! A capture file that Wireshark and tcpdump read.
//!
//! Each packet is written as it was seen, before it was fixed: whoever opens the file wants to see
//! the fault. The verdict is the packet's comment, the hook its direction. Lost events are announced
//! with the next packet of their network namespace, as the format wants it: a count of what was
//! dropped before this packet. Those that no packet follows are said at the end, in statistics.

use std::{collections::HashMap, io::Write, sync::Arc, time::Duration};

use fixer_common::abi::Hook;
use jiff::Timestamp;
use pcap_file::{
    DataLink, Endianness,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{
                InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
            },
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            opt_common::CommonOption,
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use super::{Finding, Missing, Sink, SinkError};
use crate::event::{Event, HOST, Lost};

/// Writes each event as a packet of a pcapng file.
pub struct Pcapng<W: Write> {
    writer: PcapNgWriter<W>,
    /// The number in the file of each interface that was described: the place of its description.
    interfaces: HashMap<Interface, u32>,
    /// Events that were lost and not yet announced, and when that was noticed.
    lost: HashMap<Arc<str>, (u64, Timestamp)>,
}

/// What tells interfaces apart. One that gets another name is another one.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Interface {
    netns: Arc<str>,
    ifindex: u32,
    name: Arc<str>,
}

impl<W: Write> Pcapng<W> {
    /// Starts a file on this writer, which had better be buffered.
    pub fn new(writer: W) -> Result<Self, SinkError> {
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![
                SectionHeaderOption::OS("Linux".into()),
                SectionHeaderOption::UserApplication(
                    concat!("fixer ", env!("CARGO_PKG_VERSION")).into(),
                ),
            ],
            ..Default::default()
        };
        let writer = PcapNgWriter::with_section_header(writer, section)?;
        Ok(Self { writer, interfaces: HashMap::new(), lost: HashMap::new() })
    }

    /// The number of an interface, which is described first if it is new.
    fn interface(&mut self, interface: Interface) -> Result<u32, SinkError> {
        if let Some(&id) = self.interfaces.get(&interface) {
            return Ok(id);
        }
        let mut options = vec![
            InterfaceDescriptionOption::IfName((&*interface.name).into()),
            InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
        ];
        if &*interface.netns != HOST {
            let description = format!("in network namespace {}", interface.netns);
            options.push(InterfaceDescriptionOption::IfDescription(description.into()));
        }
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            // No limit of its own: each packet says how long it was.
            snaplen: 0,
            options,
        })?;
        let id = self.interfaces.len() as u32;
        self.interfaces.insert(interface, id);
        Ok(id)
    }
}

impl<W: Write> Sink for Pcapng<W> {
    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let interface_id = self.interface(Interface {
            netns: Arc::clone(&event.netns),
            ifindex: event.ifindex,
            name: Arc::clone(&event.interface),
        })?;
        let finding = Finding { event, style: anstyle::Style::new() };
        let mut options =
            vec![comment(&finding), EnhancedPacketOption::Flags(direction(event.hook))];
        if let Some((lost, _)) = self.lost.remove(&event.netns) {
            options.push(comment(&format_args!("{} before this packet", Missing::of_events(lost))));
            options.push(EnhancedPacketOption::DropCount(lost));
        }
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp: since_1970(event.time),
            original_len: event.capture.seen_len(),
            data: event.capture.as_seen().into(),
            options,
        })?;
        Ok(())
    }

    /// A capture file has no exchanges.
    fn lost(&mut self, lost: &Lost) -> Result<(), SinkError> {
        if lost.lost == 0 {
            return Ok(());
        }
        let (count, time) = self.lost.entry(Arc::clone(&lost.netns)).or_insert((0, lost.time));
        (*count, *time) = (count.saturating_add(lost.lost), lost.time);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.writer.get_mut().flush()?)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        for (netns, (lost, time)) in std::mem::take(&mut self.lost) {
            // Statistics belong to an interface; which ones lost events nobody knows.
            let interface_id =
                self.interface(Interface { netns, ifindex: 0, name: "any".into() })?;
            let comment = CommonOption::Comment(Missing::of_events(lost).to_string().into());
            self.writer.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id,
                timestamp: since_1970(time),
                options: vec![
                    InterfaceStatisticsOption::IsbOsDrop(lost),
                    InterfaceStatisticsOption::Common(comment),
                ],
            })?;
        }
        self.flush()
    }
}

fn comment(text: &impl ToString) -> EnhancedPacketOption<'static> {
    EnhancedPacketOption::Common(CommonOption::Comment(text.to_string().into()))
}

/// The direction in a packet's flags (pcapng, section 4.3.1): 1 inbound, 2 outbound.
fn direction(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => 1,
        Hook::Egress => 2,
    }
}

/// A moment before 1970 is 1970, and one after 2554 is the last of its nanoseconds that 64 bits can
/// count: the format knows no other.
fn since_1970(time: Timestamp) -> Duration {
    let since: Duration = time.as_duration().try_into().unwrap_or_default();
    since.min(Duration::from_nanos(u64::MAX))
}

#[cfg(test)]
mod tests {
    use fixer_common::verdict::Verdict;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::event::fixture;

    fn read_back(write: impl FnOnce(&mut Pcapng<&mut Vec<u8>>)) -> Vec<Block<'static>> {
        let mut bytes = Vec::new();
        write(&mut Pcapng::new(&mut bytes).unwrap());
        PcapNgReader::new(&bytes[..]).unwrap().into_iter().map(Result::unwrap).collect()
    }

    fn packets(blocks: &[Block<'static>]) -> Vec<EnhancedPacketBlock<'static>> {
        let packet = |block: &Block<'static>| match block {
            Block::EnhancedPacket(packet) => Some(packet.clone()),
            _ => None,
        };
        blocks.iter().filter_map(packet).collect()
    }

    fn interfaces(blocks: &[Block<'static>]) -> Vec<InterfaceDescriptionBlock<'static>> {
        let interface = |block: &Block<'static>| match block {
            Block::InterfaceDescription(interface) => Some(interface.clone()),
            _ => None,
        };
        blocks.iter().filter_map(interface).collect()
    }

    fn lost(netns: &str, lost: u64) -> Lost {
        Lost {
            time: "2026-11-21T10:15:54Z".parse().unwrap(),
            netns: netns.into(),
            lost,
            exchanges: 0,
        }
    }

    #[test]
    fn a_packet_is_read_back_as_it_was_seen() {
        let event = fixture::event(Verdict::Fixed, |_| ());
        let blocks = read_back(|file| file.event(&event).unwrap());
        assert_eq!(
            interfaces(&blocks),
            [InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName("virbr0".into()),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ],
            }]
        );
        let [packet] = &packets(&blocks)[..] else { panic!("one packet") };
        assert_eq!(packet.interface_id, 0);
        assert_eq!(packet.timestamp.as_nanos() as i128, event.time.as_nanosecond());
        assert_eq!(packet.timestamp.subsec_nanos(), 15_772_001);
        assert_eq!(packet.options[0], comment(&"bad udp cksum 0x1bc7 -> 0x072b! fixed"));
        assert_eq!(packet.options[1], EnhancedPacketOption::Flags(2));
        assert_eq!(packet.options.len(), 2);

        let mut seen = fixture::offer_frame();
        seen[40..42].copy_from_slice(&[0x1b, 0xc7]);
        assert_eq!(*packet.data, seen);
        assert_eq!(packet.original_len, 342);
    }

    #[test]
    fn a_cut_capture_keeps_its_length_and_a_tag_its_place() {
        let event = fixture::event(Verdict::Valid, |header| {
            (header.captured, header.vlan_protocol, header.vlan_tci) = (60, 0x8100, 5);
        });
        let blocks = read_back(|file| file.event(&event).unwrap());
        let [packet] = &packets(&blocks)[..] else { panic!("one packet") };
        assert_eq!((packet.data.len(), packet.original_len), (64, 346));
        assert_eq!(packet.data[12..18], [0x81, 0x00, 0x00, 0x05, 0x08, 0x00]);
        assert_eq!(packet.options[0], comment(&"udp cksum ok valid"));
    }

    #[test]
    fn a_frame_that_was_not_captured_is_still_a_packet() {
        let event = fixture::event(Verdict::Dropped, |header| header.captured = 0);
        let blocks = read_back(|file| file.event(&event).unwrap());
        let [packet] = &packets(&blocks)[..] else { panic!("one packet") };
        assert_eq!((packet.data.len(), packet.original_len), (0, 342));
    }

    #[test]
    fn each_interface_is_described_once() {
        let first = fixture::event(Verdict::Valid, |header| header.hook = 0);
        let mut second = fixture::event(Verdict::Valid, |_| ());
        second.netns = "pod".into();
        let blocks = read_back(|file| {
            for event in [&first, &second, &first, &second] {
                file.event(event).unwrap();
            }
        });
        let interfaces = interfaces(&blocks);
        assert_eq!(interfaces.len(), 2);
        let description =
            InterfaceDescriptionOption::IfDescription("in network namespace pod".into());
        assert!(!interfaces[0].options.contains(&description));
        assert!(interfaces[1].options.contains(&description));
        let packets = packets(&blocks);
        let ids: Vec<_> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(ids, [0, 1, 0, 1]);
        assert_eq!(packets[0].options[1], EnhancedPacketOption::Flags(1));
    }

    #[test]
    fn a_loss_is_announced_with_the_next_packet_of_its_namespace() {
        let here = fixture::event(Verdict::Valid, |_| ());
        let mut there = here.clone();
        there.netns = "pod".into();
        let blocks = read_back(|file| {
            file.lost(&lost(HOST, 5)).unwrap();
            file.lost(&lost(HOST, 7)).unwrap();
            for event in [&there, &here, &here] {
                file.event(event).unwrap();
            }
            file.finish().unwrap();
        });
        let packets = packets(&blocks);
        assert_eq!(packets[0].options.len(), 2);
        assert_eq!(packets[1].options[2], comment(&"12 events were lost before this packet"));
        assert_eq!(packets[1].options[3], EnhancedPacketOption::DropCount(12));
        assert_eq!(packets[2].options.len(), 2);
        assert!(!blocks.iter().any(|block| matches!(block, Block::InterfaceStatistics(_))));
    }

    #[test]
    fn a_loss_that_no_packet_follows_is_said_at_the_end() {
        let blocks = read_back(|file| {
            file.event(&fixture::event(Verdict::Valid, |_| ())).unwrap();
            file.lost(&lost("pod", 3)).unwrap();
            file.finish().unwrap();
        });
        let Some(Block::InterfaceStatistics(statistics)) = blocks.last() else {
            panic!("statistics at the end: {blocks:?}")
        };
        assert_eq!(statistics.interface_id, 1);
        assert_eq!(statistics.options[0], InterfaceStatisticsOption::IsbOsDrop(3));
        let comment = CommonOption::Comment("3 events were lost".into());
        assert_eq!(statistics.options[1], InterfaceStatisticsOption::Common(comment));
    }

    #[test]
    fn a_writer_that_refuses_is_an_io_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(matches!(Pcapng::new(Full), Err(SinkError::Io(_))));
    }
}
