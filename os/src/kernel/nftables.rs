//! Changes of the nftables table `inet warren`, as messages of linux/netfilter/nf_tables.h.
//!
//! `docs/decisions/0008-packet-filter.md` says why they are written here.

use nix::{errno::Errno, libc};
use policies::names::Transport;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read as _},
    time::Duration,
};

/// The name of the table.
pub(super) const TABLE: &str = "warren";
/// Maximum time in which the kernel answers; it does so before `sendto` returns.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of the buffer for one answer, which repeats the request, or for a part of a list.
const ANSWER_SIZE: usize = 32_768;

// linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const DUMP: u16 = 0x300;
const NESTED: u16 = 0x8000;
const FAMILY_INET: u8 = 1;
const HOOK_PREROUTING: u32 = 0;
pub(super) const HOOK_INPUT: u32 = 1;
pub(super) const HOOK_OUTPUT: u32 = 3;
pub(super) const VERDICT_DROP: u32 = 0;
pub(super) const VERDICT_ACCEPT: u32 = 1;
pub(super) const META_INPUT_NAME: u32 = 6;
pub(super) const META_OUTPUT_NAME: u32 = 7;
const META_UID: u32 = 10;
const META_PROTOCOL: u32 = 16;
const TRANSPORT_HEADER: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const PORT_GIVEN: u32 = 2;
/// The priority after `NF_IP_PRI_NAT_DST` of linux/netfilter_ipv4.h, so that ports that other programs redirect, as Docker does, stay theirs.
const AFTER_OTHER_REDIRECTS: i32 = -99;
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;

/// The expressions of one rule, in the kernel's form.
#[derive(Default)]
pub(super) struct Rule(Vec<u8>);

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
    pub(super) fn link(self, key: u32, name: Vec<u8>, is_equal: bool) -> Self {
        self.compare(key, &name, is_equal)
    }

    /// Goes on if the packet is of this transport and to this port.
    pub(super) fn port(self, transport: Transport, port: u16) -> Self {
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
    pub(super) fn user_is_not(self, uid: u32) -> Self {
        self.compare(META_UID, &uid.to_ne_bytes(), false)
    }

    /// Goes on if the packet is to an address of this host.
    pub(super) fn destination_is_local(self) -> Self {
        let data = [
            number(1, REGISTER),
            number(2, FIB_ADDRESS_TYPE),
            number(3, FIB_DESTINATION),
        ];
        let local = u32::from(libc::RTN_LOCAL);
        self.expression("fib", &data)
            .compare_loaded(&local.to_ne_bytes(), true)
    }

    /// Sends the packet to another port of this host.
    pub(super) fn redirect_to(self, port: u16) -> Self {
        let value = nested(2, &[attribute(1, &port.to_be_bytes())]);
        self.expression("immediate", &[number(1, REGISTER), value])
            .expression("redir", &[number(1, REGISTER), number(3, PORT_GIVEN)])
    }

    pub(super) fn verdict(self, verdict: u32) -> Self {
        let data = nested(2, &[nested(2, &[number(1, verdict)])]);
        self.expression("immediate", &[number(1, VERDICT_REGISTER), data])
    }
}

/// Opens a socket to the kernel's packet filters.
fn open() -> io::Result<Socket> {
    let netfilter = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(netfilter))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}

/// Returns the number of rules in the table; 0 if there is no table.
pub(super) fn count_rules() -> io::Result<usize> {
    let socket = open()?;
    let content = text(1, TABLE);
    socket.send(&message(
        GET_RULE,
        REQUEST | DUMP,
        0,
        FAMILY_INET,
        0,
        &content,
    ))?;
    let mut answer = vec![0; ANSWER_SIZE];
    let mut rules = 0;
    loop {
        let length = (&socket).read(&mut answer)?;
        let mut rest = answer.get(..length).unwrap_or_default();
        while let Some((kind, next)) = next_message(rest) {
            match kind {
                NEW_RULE => rules += 1,
                DONE => return Ok(rules),
                ERROR => match read_error(rest) {
                    Some((code, _)) if code == -libc::ENOENT => return Ok(0),
                    Some((code, _)) => {
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    None => return Err(Errno::EBADMSG.into()),
                },
                _ => {}
            }
            rest = next;
        }
    }
}

/// Returns the kind of the first message, and the bytes behind it; `None` at the end, or if it is malformed.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?.max(16).next_multiple_of(4);
    Some((kind, bytes.get(length..).unwrap_or_default()))
}

/// Messages that the kernel carries out together or not at all.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// Creates the table unless it exists.
    pub(super) fn create_table(&mut self) {
        self.message(NEW_TABLE, CREATE, &[text(1, TABLE)]);
    }

    /// Deletes the table; fails if it does not exist.
    pub(super) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, CREATE, &[text(1, TABLE)]);
    }

    /// Creates a chain that filters the packets of a hook.
    pub(super) fn filter_chain(&mut self, name: &str, hook: u32) {
        self.chain(name, ("filter", hook, 0));
    }

    /// Creates a chain that changes destinations before packets are routed.
    pub(super) fn redirecting_chain(&mut self, name: &str) {
        self.chain(name, ("nat", HOOK_PREROUTING, AFTER_OTHER_REDIRECTS));
    }

    fn chain(&mut self, name: &str, (kind, hook, priority): (&str, u32, i32)) {
        let priority = attribute(2, &priority.to_be_bytes());
        let hook = nested(4, &[number(1, hook), priority]);
        let policy = number(5, VERDICT_ACCEPT);
        let content = [text(1, TABLE), text(3, name), hook, policy, text(7, kind)];
        self.message(NEW_CHAIN, CREATE, &content);
    }

    pub(super) fn rule(&mut self, chain: &str, rule: &Rule) {
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
    pub(super) fn execute(self) -> io::Result<()> {
        let socket = open()?;
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
    let (kind, rest) = next_message(bytes)?;
    let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    (kind == ERROR).then_some((code, rest))
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

/// The bytes of a name, and a zero.
pub(super) fn whole_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
