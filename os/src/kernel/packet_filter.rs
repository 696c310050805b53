//! The nftables table `inet warren`: only root and babeld's user may send Babel and the daemons' datagrams, and only slots and the
//! configured links may bring them in.
//!
//! babeld takes packets from any source port, and packets on tunnels carry no MAC, so without the table each user of the host
//! could speak for the node. The messages are those of linux/netfilter/nf_tables.h; `docs/decisions/0008-packet-filter.md`
//! says why they are written here.

use super::{Kernel, KernelError};
use fault_points::fault;
use nix::errno::Errno;
use policies::names::Transport;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read as _},
    time::Duration,
};
use wire::{babel_packet, suspicion};

/// The name of the table.
const TABLE: &str = "warren";
/// The beginning of the names of all slots and TAPs of servers.
const SLOTS: &[u8] = b"wrn";
/// Maximum time in which the kernel answers; it does so before `sendto` returns.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of the buffer for one answer, which repeats the request.
const ANSWER_SIZE: usize = 8192;

// linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const FAMILY_INET: u8 = 1;
const HOOK_INPUT: u32 = 1;
const HOOK_OUTPUT: u32 = 3;
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
const META_INPUT_NAME: u32 = 6;
const META_OUTPUT_NAME: u32 = 7;
const META_UID: u32 = 10;
const META_PROTOCOL: u32 = 16;
const TRANSPORT_HEADER: u32 = 2;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// Who and what may pass the node's own ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketFilter {
    /// The user of babeld, which sends Babel as root does.
    pub babeld_uid: u32,
    /// The ports of OpenVPN's servers, which cannot be reached through tunnels.
    pub servers: Vec<(Transport, u16)>,
    /// Links other than slots on which babeld speaks.
    pub interfaces: Vec<String>,
}

impl Kernel {
    /// Creates the table, or replaces it in one step.
    ///
    /// # Errors
    ///
    /// The kernel has no nftables, or rejects the change.
    pub fn filter_packets(&self, filter: &PacketFilter) -> Result<(), KernelError> {
        let mut batch = Batch::default();
        // Deleting fails where there is no table, so it is created before.
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.table(NEW_TABLE);
        batch.chain("sent", HOOK_OUTPUT);
        for rule in filter.rules_for_sent() {
            batch.rule("sent", &rule);
        }
        batch.chain("received", HOOK_INPUT);
        for rule in filter.rules_for_received() {
            batch.rule("received", &rule);
        }
        batch
            .execute()
            .map_err(KernelError::refused("create the nftables table warren"))?;
        fault!("create the nftables table");
        Ok(())
    }

    /// Deletes the table; returns whether there was one.
    ///
    /// # Errors
    ///
    /// The kernel rejects the change.
    pub(super) fn remove_packet_filter(&self) -> Result<bool, KernelError> {
        let mut batch = Batch::default();
        batch.table(DELETE_TABLE);
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

fn whole_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// The expressions of one rule, in the kernel's form.
#[derive(Default)]
struct Rule(Vec<u8>);

impl Rule {
    fn expression(mut self, name: &str, data: &[Vec<u8>]) -> Self {
        let content = [text(1, name), nested(2, data)];
        self.0.extend(nested(1, &content));
        self
    }

    /// Loads a value of the packet, and goes on if it is, or is not, this one.
    fn compare(self, key: u32, value: &[u8], is_equal: bool) -> Self {
        self.expression("meta", &[number(1, REGISTER), number(2, key)])
            .compare_loaded(value, is_equal)
    }

    fn compare_loaded(self, value: &[u8], is_equal: bool) -> Self {
        let data = nested(3, &[attribute(1, value)]);
        let operation = number(2, u32::from(!is_equal));
        self.expression("cmp", &[number(1, REGISTER), operation, data])
    }

    /// Goes on if the name of the packet's link begins, or does not begin, like this.
    fn link(self, key: u32, name: Vec<u8>, is_equal: bool) -> Self {
        self.compare(key, &name, is_equal)
    }

    /// Goes on if the packet is of this transport and to this port.
    fn port(self, transport: Transport, port: u16) -> Self {
        let protocol = match transport {
            Transport::Udp => libc::IPPROTO_UDP,
            Transport::Tcp => libc::IPPROTO_TCP,
        };
        let [.., protocol] = protocol.to_be_bytes();
        // Both transports have the destination port in bytes 2 and 3.
        let load = [
            number(1, REGISTER),
            number(2, TRANSPORT_HEADER),
            number(3, 2),
            number(4, 2),
        ];
        self.compare(META_PROTOCOL, &[protocol], true)
            .expression("payload", &load)
            .compare_loaded(&port.to_be_bytes(), true)
    }

    /// Goes on if another user opened the socket from which the packet comes; the kernel's own packets have no socket, and pass.
    fn user_is_not(self, uid: u32) -> Self {
        self.compare(META_UID, &uid.to_ne_bytes(), false)
    }

    fn verdict(self, verdict: u32) -> Self {
        let data = nested(2, &[nested(2, &[number(1, verdict)])]);
        self.expression("immediate", &[number(1, VERDICT_REGISTER), data])
    }
}

/// Messages that the kernel carries out together or not at all.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    fn table(&mut self, kind: u16) {
        self.message(kind, CREATE, &[text(1, TABLE)]);
    }

    fn chain(&mut self, name: &str, hook: u32) {
        let hook = nested(4, &[number(1, hook), number(2, 0)]);
        let policy = number(5, VERDICT_ACCEPT);
        let content = [
            text(1, TABLE),
            text(3, name),
            hook,
            policy,
            text(7, "filter"),
        ];
        self.message(NEW_CHAIN, CREATE, &content);
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        let expressions = attribute(4 | NESTED, &rule.0);
        let content = [text(1, TABLE), text(2, chain), expressions];
        self.message(NEW_RULE, CREATE | APPEND, &content);
    }

    fn message(&mut self, kind: u16, flags: u16, content: &[Vec<u8>]) {
        self.count += 1;
        let flags = match kind {
            DELETE_TABLE => REQUEST | ACKNOWLEDGE,
            _ => REQUEST | ACKNOWLEDGE | flags,
        };
        let message = message(kind, flags, self.count, FAMILY_INET, 0, &content.concat());
        self.bytes.extend(message);
    }

    /// Sends the messages, and waits for the answer to each; the first error is returned.
    fn execute(self) -> io::Result<()> {
        let netlink = Domain::from(libc::AF_NETLINK);
        let socket = Socket::new(
            netlink,
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let begin = message(BATCH_BEGIN, REQUEST, 0, 0, SUBSYSTEM, &[]);
        let end = message(BATCH_END, REQUEST, self.count + 1, 0, SUBSYSTEM, &[]);
        socket.send(&[begin, self.bytes, end].concat())?;
        let mut answer = [0; ANSWER_SIZE];
        let mut answered = 0;
        while answered < self.count {
            let length = (&socket).read(&mut answer)?;
            let mut rest = answer.get(..length).unwrap_or_default();
            while let Some((code, next)) = read_error(rest) {
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                answered += 1;
                rest = next;
            }
        }
        Ok(())
    }
}

/// Reads one answer: its error code, which is 0 or negative, and the bytes behind it. `None` at the end, or if it is malformed.
fn read_error(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?.next_multiple_of(4);
    (kind == ERROR).then(|| (code, bytes.get(length..).unwrap_or_default()))
}

fn message(
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    content: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(20 + content.len()).unwrap_or_default();
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(content);
    bytes
}

/// An attribute of a message, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &whole_name(value))
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, content: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &content.concat())
}
