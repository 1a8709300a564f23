//! The one table of metrics: what each is called, what it says, and its series at a moment.
//!
//! Whoever exports them, as OpenMetrics or over OTLP, loops over it.

use std::sync::Arc;

use super::{Snapshot, kernel};
use crate::exchange::{Ledger, Place, Row, Seconds, TABLE as OUTCOMES};

/// A metric.
pub(super) struct Family {
    /// Its name, without what its kind and its unit add to it.
    pub(super) name: &'static str,
    /// What it says, for people.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// What it counts or measures, as UCUM writes it: things are in braces.
    pub(super) unit: &'static str,
    /// What it says, in numbers.
    pub(super) series: fn(&Moment) -> Vec<Series<'_>>,
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// It does not fall.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// It counts lengths of time by how long they are.
    Histogram,
}

/// The unit of lengths of time.
pub(super) const SECONDS: &str = "s";

/// A value and its labels, by their names.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) labels: Vec<(&'static str, &'a str)>,
    pub(super) value: Value<'a>,
}

/// The value of a series.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A counter's or a gauge's.
    Number(u64),
    /// A histogram's.
    Seconds(&'a Seconds),
}

/// The table. Names are a contract with whoever asks for them.
pub(super) const TABLE: [Family; 8] = [
    Family {
        name: "fixer_packets",
        help: "Packets that a rule matched, by what became of them",
        kind: Kind::Counter,
        unit: "{packet}",
        series: Moment::packets,
    },
    Family {
        name: "fixer_events_lost",
        help: "Events that nobody took in time and were not shown; fixer_packets is not affected",
        kind: Kind::Counter,
        unit: "{event}",
        series: Moment::events_lost,
    },
    Family {
        name: "fixer_dhcp_messages",
        help: "DHCP messages in the events that were read: with --all in every matched packet, else \
               in bad ones only; less those that the kernel had no room for",
        kind: Kind::Counter,
        unit: "{message}",
        series: Moment::messages,
    },
    Family {
        name: "fixer_exchanges",
        help: "DHCP exchanges that are over, by how they ended (run --all --hook both)",
        kind: Kind::Counter,
        unit: "{exchange}",
        series: Moment::exchanges,
    },
    Family {
        name: "fixer_exchange",
        help: "From a client's DISCOVER to the ACK (run --all --hook both)",
        kind: Kind::Histogram,
        unit: SECONDS,
        series: Moment::seconds,
    },
    Family {
        name: "fixer_exchanges_forgotten",
        help: "DHCP exchanges of which nobody knows how they ended: they were forgotten to make room \
               for others, or seemed unanswered where events were lost",
        kind: Kind::Counter,
        unit: "{exchange}",
        series: Moment::forgotten,
    },
    Family {
        name: "fixer_interface_attached",
        help: "Where the programs are attached, and how",
        kind: Kind::Gauge,
        unit: "",
        series: Moment::attached,
    },
    Family {
        name: "fixer_build_info",
        help: "The version of fixer and of the kernel that it runs on",
        kind: Kind::Gauge,
        unit: "",
        series: Moment::build_info,
    },
];

/// All that is exported, as it was at one moment.
#[derive(Debug)]
pub(super) struct Moment {
    snapshots: Vec<Snapshot>,
    /// What was counted of the conversation, by interface.
    conversation: Vec<(Place, Row)>,
    /// Exchanges that were forgotten, by namespace.
    forgotten: Vec<(Arc<str>, u64)>,
    kernel: String,
}

impl Moment {
    /// The moment of these snapshots, with what the stream has counted.
    pub(super) fn new(snapshots: Vec<Snapshot>, ledger: &Ledger) -> Self {
        let forgotten = |snapshot: &Snapshot| {
            (Arc::clone(&snapshot.netns), ledger.forgotten_in(&snapshot.netns))
        };
        let forgotten = snapshots.iter().map(forgotten).collect();
        Self { snapshots, conversation: ledger.rows(), forgotten, kernel: kernel() }
    }

    fn packets(&self) -> Vec<Series<'_>> {
        let mut all = Vec::new();
        for Snapshot { netns, counters, .. } in &self.snapshots {
            for (interface, row) in counters {
                all.extend(row.counts().map(|(verdict, count)| {
                    let labels = vec![
                        ("netns", &**netns),
                        ("interface", interface),
                        ("hook", row.hook.name()),
                        ("verdict", verdict.name()),
                    ];
                    number(labels, count)
                }));
            }
        }
        all
    }

    fn events_lost(&self) -> Vec<Series<'_>> {
        let sites = self.snapshots.iter();
        sites.map(|site| number(vec![("netns", &*site.netns)], site.lost)).collect()
    }

    fn messages(&self) -> Vec<Series<'_>> {
        self.by_interface(|labels, row| {
            let of_type = |(message_type, count): (&&'static str, &u64)| {
                number(with(labels, "message_type", message_type), *count)
            };
            row.messages.iter().map(of_type).collect()
        })
    }

    fn exchanges(&self) -> Vec<Series<'_>> {
        self.by_interface(|labels, row| {
            let ended = OUTCOMES.iter().zip(row.outcomes);
            ended.map(|(row, count)| number(with(labels, "outcome", row.name), count)).collect()
        })
    }

    fn seconds(&self) -> Vec<Series<'_>> {
        self.by_interface(|labels, row| {
            vec![Series { labels: labels.to_vec(), value: Value::Seconds(&row.seconds) }]
        })
    }

    fn forgotten(&self) -> Vec<Series<'_>> {
        let forgotten = self.forgotten.iter();
        forgotten.map(|(netns, count)| number(vec![("netns", netns)], *count)).collect()
    }

    fn attached(&self) -> Vec<Series<'_>> {
        let mut all = Vec::new();
        for Snapshot { netns, attached, .. } in &self.snapshots {
            all.extend(attached.iter().map(|(interface, hook, mode)| {
                let labels = vec![
                    ("netns", &**netns),
                    ("interface", interface),
                    ("hook", hook.name()),
                    ("mode", mode),
                ];
                number(labels, 1)
            }));
        }
        all
    }

    fn build_info(&self) -> Vec<Series<'_>> {
        let version = env!("CARGO_PKG_VERSION");
        vec![number(vec![("version", version), ("kernel", &self.kernel)], 1)]
    }

    /// What is made of the conversation of each interface.
    fn by_interface<'a>(
        &'a self,
        series: impl Fn(&[(&'static str, &'a str)], &'a Row) -> Vec<Series<'a>>,
    ) -> Vec<Series<'a>> {
        let rows = self.conversation.iter();
        rows.flat_map(|((netns, interface), row)| {
            series(&[("netns", &**netns), ("interface", interface)], row)
        })
        .collect()
    }
}

fn number<'a>(labels: Vec<(&'static str, &'a str)>, value: u64) -> Series<'a> {
    Series { labels, value: Value::Number(value) }
}

/// Labels with one more.
fn with<'a>(
    labels: &[(&'static str, &'a str)],
    name: &'static str,
    value: &'a str,
) -> Vec<(&'static str, &'a str)> {
    [labels, &[(name, value)]].concat()
}
