//! The nftables table `inet warren`: only root and babeld's user may send Babel and the daemons' datagrams, and only slots and the
//! configured links may bring them in.
//!
//! babeld takes packets from any source port, and packets on tunnels carry no MAC, so without the table each user of the host
//! could speak for the node. Packets to further ports of a server are redirected to its own port.

use super::{
    Kernel, KernelError,
    nftables::{
        Batch, HOOK_INPUT, HOOK_OUTPUT, META_INPUT_NAME, META_OUTPUT_NAME, Rule, VERDICT_ACCEPT,
        VERDICT_DROP, count_rules, whole_name,
    },
    repair::{Repair, RepairKind, Step},
};
use fault_points::fault;
use nix::errno::Errno;
use policies::names::Transport;
use wire::{babel_packet, suspicion};

/// The beginning of the names of all slots and TAPs of servers.
const SLOTS: &[u8] = b"wrn";
/// The chains of the table, by what passes them.
const SENT: &str = "sent";
const RECEIVED: &str = "received";
const REDIRECTED: &str = "redirected";

/// Who and what may pass the node's own ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketFilter {
    /// The user of babeld, which sends Babel as root does.
    pub babeld_uid: u32,
    /// The ports of OpenVPN's servers, which cannot be reached through tunnels.
    pub servers: Vec<(Transport, u16)>,
    /// Further ports of the servers, and the server's own port to which packets are redirected.
    pub redirects: Vec<Redirect>,
    /// Links other than slots on which babeld speaks.
    pub interfaces: Vec<String>,
}

/// A port of this host, packets to which are redirected to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The transport of both ports.
    pub transport: Transport,
    /// The port to which packets are sent.
    pub from: u16,
    /// The port that gets them.
    pub to: u16,
}

impl Kernel {
    /// Creates the table, or replaces it in one step.
    ///
    /// # Errors
    ///
    /// The kernel has no nftables, or rejects the change.
    pub fn filter_packets(&self, filter: &PacketFilter) -> Result<(), KernelError> {
        filter
            .apply()
            .map_err(KernelError::refused("create the nftables table warren"))?;
        fault!("create the nftables table");
        self.state().placed.packet_filter = Some(filter.clone());
        Ok(())
    }

    /// Creates the table again if somebody has deleted it or some of its rules.
    pub(super) fn reconcile_packet_filter(&self, filter: Option<&PacketFilter>) -> Step {
        let Some(filter) = filter else {
            return Ok(Vec::new());
        };
        let expected = filter.rules().count();
        // A list is incomplete if another program changes its own tables meanwhile, so that one count proves nothing.
        for _ in 0..2 {
            let doing = KernelError::refused("list the rules of the nftables table warren");
            if count_rules().map_err(doing)? == expected {
                return Ok(Vec::new());
            }
        }
        self.filter_packets(filter)?;
        Ok(vec![Repair {
            kind: RepairKind::PacketFilter,
            object: "nftables table inet warren".to_owned(),
        }])
    }

    /// Deletes the table; returns whether there was one.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub(super) fn remove_packet_filter(&self) -> Result<bool, KernelError> {
        let mut batch = Batch::default();
        batch.delete_table();
        let absent = [
            Errno::ENOENT,
            Errno::EOPNOTSUPP,
            Errno::EPROTONOSUPPORT,
            Errno::EINVAL,
            Errno::EAFNOSUPPORT,
        ];
        match batch.execute() {
            Ok(()) => {
                fault!("delete the nftables table");
                Ok(true)
            }
            Err(error)
                if error
                    .raw_os_error()
                    .is_some_and(|code| absent.contains(&Errno::from_raw(code))) =>
            {
                Ok(false)
            }
            Err(error) => Err(KernelError::refused("delete the nftables table warren")(
                error,
            )),
        }
    }
}

impl PacketFilter {
    /// Creates the table, or replaces it in one step.
    fn apply(&self) -> std::io::Result<()> {
        let mut batch = Batch::default();
        // Deleting fails where there is no table, so it is created before.
        batch.create_table();
        batch.delete_table();
        batch.create_table();
        batch.filter_chain(SENT, HOOK_OUTPUT);
        batch.filter_chain(RECEIVED, HOOK_INPUT);
        // A chain that changes destinations makes the kernel track all connections.
        if !self.redirects.is_empty() {
            batch.redirecting_chain(REDIRECTED);
        }
        for (chain, rule) in self.rules() {
            batch.rule(chain, &rule);
        }
        batch.execute()
    }

    /// Returns all rules, each with its chain.
    fn rules(&self) -> impl Iterator<Item = (&'static str, Rule)> {
        let sent = self.rules_for_sent().into_iter().map(|rule| (SENT, rule));
        let received = self.rules_for_received().into_iter();
        let redirected = self.rules_for_redirected().into_iter();
        sent.chain(received.map(|rule| (RECEIVED, rule)))
            .chain(redirected.map(|rule| (REDIRECTED, rule)))
    }

    fn rules_for_redirected(&self) -> Vec<Rule> {
        let redirects = self.redirects.iter().map(|redirect| {
            Rule::default()
                .link(META_INPUT_NAME, Link::Slots.name(), false)
                .destination_is_local()
                .port(redirect.transport, redirect.from)
                .redirect_to(redirect.to)
        });
        redirects.collect()
    }

    fn rules_for_sent(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        // Packets to this node's own babeld leave by lo.
        for link in [Link::Slots, Link::Loopback] {
            for port in [babel_packet::PORT, suspicion::PORT] {
                let rule = Rule::default()
                    .link(META_OUTPUT_NAME, link.name(), true)
                    .port(Transport::Udp, port);
                let users = [0, self.babeld_uid];
                let rule = users.into_iter().fold(rule, Rule::user_is_not);
                rules.push(rule.verdict(VERDICT_DROP));
            }
        }
        rules
    }

    fn rules_for_received(&self) -> Vec<Rule> {
        let from = |link: &[u8]| Rule::default().link(META_INPUT_NAME, link.to_vec(), true);
        let mut rules = vec![from(&Link::Loopback.name()).verdict(VERDICT_ACCEPT)];
        for (transport, port) in &self.servers {
            let rule = from(&Link::Slots.name()).port(*transport, *port);
            rules.push(rule.verdict(VERDICT_DROP));
        }
        for port in [babel_packet::PORT, suspicion::PORT] {
            for interface in &self.interfaces {
                let rule = from(&whole_name(interface)).port(Transport::Udp, port);
                rules.push(rule.verdict(VERDICT_ACCEPT));
            }
            let rule = Rule::default().link(META_INPUT_NAME, Link::Slots.name(), false);
            let rule = rule.port(Transport::Udp, port);
            rules.push(rule.verdict(VERDICT_DROP));
        }
        rules
    }
}

/// Links that rules name.
#[derive(Clone, Copy)]
enum Link {
    Slots,
    Loopback,
}

impl Link {
    /// The bytes with which the name begins; the whole name ends with a zero.
    fn name(self) -> Vec<u8> {
        match self {
            Self::Slots => SLOTS.to_vec(),
            Self::Loopback => whole_name("lo"),
        }
    }
}
