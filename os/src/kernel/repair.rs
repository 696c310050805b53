//! What a comparison of the host finds and restores.

use super::KernelError;
use policies::names::Slot;
use wire::errors::Chain;

/// The kinds of what a node has on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepairKind {
    /// A routing rule.
    Rule,
    /// An `unreachable` route, the multicast route of a slot, or a route of babeld.
    Route,
    /// The node's address on `lo`, or a slot's link-local address.
    Address,
    /// A setting below `/proc/sys`.
    Sysctl,
    /// A slot, or the TAP of a server.
    Link,
    /// The nftables table of the node.
    PacketFilter,
}

impl RepairKind {
    /// All kinds of repairs.
    pub const ALL: &[Self] = &[
        Self::Rule,
        Self::Route,
        Self::Address,
        Self::Sysctl,
        Self::Link,
        Self::PacketFilter,
    ];

    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Route => "route",
            Self::Address => "address",
            Self::Sysctl => "sysctl",
            Self::Link => "link",
            Self::PacketFilter => "packet_filter",
        }
    }
}

/// Something that was missing or changed, and was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The kind of what was restored.
    pub kind: RepairKind,
    /// What it was, such as `rule of priority 32000`.
    pub object: String,
}

/// The result of one comparison of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostComparison {
    /// What was restored.
    pub repairs: Vec<Repair>,
    /// Why something could not be restored or compared.
    pub failure: Option<String>,
    /// The slots whose links somebody had deleted. A process that used one still has a descriptor that is good for nothing.
    pub deleted_slots: Vec<Slot>,
    /// The slots that were set up again. babeld has dropped all routes by them.
    pub restored_slots: Vec<Slot>,
    /// The priorities of other programs' rules that are consulted before the node's, in order.
    pub earlier_rules: Vec<u32>,
}

/// What one step of a comparison restored, and the first error.
pub(super) type Step = Result<Vec<Repair>, KernelError>;

impl HostComparison {
    /// Adds the result of one step.
    pub(super) fn add(&mut self, step: Step) {
        match step {
            Ok(repairs) => self.repairs.extend(repairs),
            Err(error) => {
                self.failure
                    .get_or_insert_with(|| Chain(&error).to_string());
            }
        }
    }
}
