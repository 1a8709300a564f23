//! What was counted of the conversation, as OpenMetrics.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        MetricType::{Counter, Histogram},
        counter::ConstCounter,
    },
    registry::Unit,
};

use crate::exchange::{Ledger, TABLE};

/// The ledger, and the labels of the namespaces.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) ledger: Ledger,
    pub(super) namespaces: Vec<Arc<str>>,
}

const MESSAGES: &str = "DHCP messages in the events that were shown: with --all in every matched \
                        packet, else in bad ones only; less those in fixer_events_lost";
const EXCHANGES: &str = "DHCP exchanges that are over, by how they ended (run --all --hook both)";
const SECONDS: &str = "From a client's DISCOVER to the ACK (run --all --hook both)";
const FORGOTTEN: &str =
    "DHCP exchanges that were forgotten before their end, to make room for others";

impl Collector for Conversation {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let rows = self.ledger.rows();
        let mut family =
            encoder.encode_descriptor("fixer_dhcp_messages", MESSAGES, None, Counter)?;
        for ((netns, interface), row) in &rows {
            for (message_type, count) in &row.messages {
                let labels =
                    [("netns", &**netns), ("interface", interface), ("message_type", message_type)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor("fixer_exchanges", EXCHANGES, None, Counter)?;
        for ((netns, interface), row) in &rows {
            for (outcome, count) in TABLE.iter().zip(row.outcomes) {
                let labels =
                    [("netns", &**netns), ("interface", interface), ("outcome", outcome.name)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let unit = Unit::Seconds;
        let mut family =
            encoder.encode_descriptor("fixer_exchange", SECONDS, Some(&unit), Histogram)?;
        for ((netns, interface), row) in &rows {
            let labels = [("netns", &**netns), ("interface", interface)];
            row.seconds.encode(family.encode_family(&labels)?)?;
        }
        let mut family =
            encoder.encode_descriptor("fixer_exchanges_forgotten", FORGOTTEN, None, Counter)?;
        for netns in &self.namespaces {
            let count = self.ledger.forgotten_in(netns);
            ConstCounter::new(count).encode(family.encode_family(&[("netns", &**netns)])?)?;
        }
        Ok(())
    }
}
