//! Reads the dumps of babeld 1.12.1 into a [`BabelTable`].
//!
//! A [`Decoder`] turns the bytes of the local socket into [`Reply`]s. Entries outside the network's
//! range, or on links that are no slots, are counted and dropped. babeld 1.12.1 may print freed
//! memory after `flush interface`, so any line may be garbage.

mod fields;

pub use policies::route_checks::OriginClaim;

pub use crate::babel_config::{BabelConfig, BadConfig, MacKey, next_seqno, state_file};
use crate::{
    babel_updates::is_claim,
    lines::{Line, Lines},
    overlay::{Network, Network4, node_of_link_local, node_of_router_id, router_id_text},
};
use fields::Fields;
use ipnet::IpNet;
use policies::{
    names::{Prefix, Slot},
    observation::{BabelTable, Neighbour, Route},
};
use std::{net::Ipv6Addr, time::Duration};

/// Asks for all interfaces, neighbours and routes.
pub const DUMP: &str = "dump\n";

/// Longest line that is parsed, in bytes: the size of babeld's own buffer for a command.
const MAX_LINE: usize = 1024;
/// The maximum number of neighbours and of routes that are kept of one dump: 10^4 nodes by 40 neighbours, twice.
const MAX_ENTRIES: usize = 800_000;

/// The status line with which babeld ends its answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// babeld's greeting: sent once, when the connection opens.
    Greeting {
        /// The version that babeld reports, such as `babeld-1.12.1`; empty if it reports none.
        version: String,
    },
    /// The answer to [`DUMP`].
    Dump(Dump),
    /// The answer to a command that babeld rejects, with its reason.
    Refused(String),
}

/// babeld's tables at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Neighbours on slots, and routes towards nodes through them.
    pub table: BabelTable,
    /// Slots that babeld knows, and whether it sees them up.
    pub interfaces: Vec<(Slot, bool)>,
    /// Node prefixes that babeld announces for this machine: our own, and no other.
    pub announced: Vec<Prefix>,
    /// The default routes for packets from the network's range.
    pub exit_routes: ExitRoutes,
    /// What neighbours say about the origins of the ranges of nodes, IPv4 ranges included.
    pub claims: Vec<OriginClaim>,
    /// Number of neighbours and routes outside the network's range or on links that are no slots.
    pub foreign: u32,
    /// Number of lines that could not be parsed, or were beyond the limits.
    pub garbage: u32,
}

/// What babeld knows of the default route for the network's packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitRoutes {
    /// The routes learnt from each neighbour, installed or not.
    pub routes: Vec<DefaultRoute>,
    /// Whether babeld announces this machine's own default route.
    pub own: bool,
}

/// A default route for packets from the network's range only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The exit gateway that the route's router id names.
    pub gateway: Prefix,
    /// The slot by which packets leave.
    pub slot: Slot,
    /// The neighbour that is the next hop.
    pub via: Prefix,
    /// Whether babeld selected the route.
    pub installed: bool,
    /// Total metric; [`INFINITY`](policies::observation::INFINITY) if the route is unreachable, or `gateway` is none of the network's gateways.
    pub metric: u16,
    /// The metric that the neighbour announced.
    pub refmetric: u16,
}

impl Dump {
    fn entries(&self) -> usize {
        let lists = [
            self.table.neighbours.len(),
            self.table.routes.len(),
            self.exit_routes.routes.len(),
        ];
        lists.into_iter().fold(0, usize::saturating_add)
    }
}

/// Parses the bytes of one connection to babeld's local socket into replies.
#[derive(Clone, Debug)]
pub struct Decoder {
    network: Network,
    ipv4: Option<Network4>,
    lines: Lines,
    greeting: Option<String>,
    dump: Dump,
}

/// The content of one line that the daemon uses.
enum Entry {
    Interface(Slot, bool),
    Neighbour(Neighbour),
    Announced(Prefix),
    Route(Route, OriginClaim),
    /// A route that is no entry of the table, with its metric: to the IPv4 range of a node, or from an address that is no node's.
    ClaimOnly(u16, OriginClaim),
    AnnouncedDefault,
    Default(DefaultRoute),
    Foreign,
}

impl Decoder {
    /// Keeps what belongs to `network`, or to its IPv4 range.
    pub fn new(network: Network, ipv4: Option<Network4>) -> Self {
        Self {
            network,
            ipv4,
            lines: Lines::new(MAX_LINE),
            greeting: None,
            dump: Dump::default(),
        }
    }

    /// Takes the next bytes, split at any place, and returns the replies that they completed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Reply> {
        let lines = self.lines.feed(bytes);
        lines
            .into_iter()
            .filter_map(|line| self.line(&line))
            .collect()
    }

    fn line(&mut self, line: &Line) -> Option<Reply> {
        let Line::Text(text) = line else {
            self.garbage();
            return None;
        };
        let mut words = text.split_ascii_whitespace();
        match (words.next()?, self.greeting.as_mut()) {
            ("ok", _) => Some(self.end()),
            ("no" | "bad", _) => {
                self.dump = Dump::default();
                Some(Reply::Refused(text.clone()))
            }
            ("BABEL", _) => {
                self.greeting = Some(String::new());
                None
            }
            ("version", Some(version)) => {
                *version = words.next().unwrap_or_default().to_owned();
                None
            }
            ("host" | "my-id", Some(_)) => None,
            ("add" | "change", _) => {
                self.add(&words.collect::<Vec<_>>());
                None
            }
            (_, _) => {
                self.garbage();
                None
            }
        }
    }

    fn end(&mut self) -> Reply {
        let dump = std::mem::take(&mut self.dump);
        match self.greeting.take() {
            Some(version) => Reply::Greeting { version },
            None => Reply::Dump(dump),
        }
    }

    fn garbage(&mut self) {
        self.dump.garbage = self.dump.garbage.saturating_add(1);
    }

    fn add(&mut self, words: &[&str]) {
        match self.entry(words) {
            None => self.garbage(),
            Some(_) if self.dump.entries() >= MAX_ENTRIES => self.garbage(),
            Some(Entry::Interface(slot, up)) => self.dump.interfaces.push((slot, up)),
            Some(Entry::Neighbour(neighbour)) => self.dump.table.neighbours.push(neighbour),
            Some(Entry::Announced(prefix)) => self.dump.announced.push(prefix),
            Some(Entry::Route(route, claim)) => {
                self.dump.table.routes.push(route);
                self.note_claim(route.metric, claim);
            }
            Some(Entry::ClaimOnly(metric, claim)) => self.note_claim(metric, claim),
            Some(Entry::AnnouncedDefault) => self.dump.exit_routes.own = true,
            Some(Entry::Default(route)) => self.dump.exit_routes.routes.push(route),
            Some(Entry::Foreign) => self.dump.foreign = self.dump.foreign.saturating_add(1),
        }
    }

    fn note_claim(&mut self, metric: u16, claim: OriginClaim) {
        // A retraction need not name its originator (RFC 8966, section 4.6.9).
        let is_finite = metric < policies::observation::INFINITY;
        if is_finite && is_claim(&claim) {
            self.dump.claims.push(claim);
        }
    }

    fn entry(&self, words: &[&str]) -> Option<Entry> {
        let (kind, rest) = words.split_first()?;
        let (id, fields) = rest.split_first()?;
        let fields = Fields(fields);
        match *kind {
            "interface" => interface(id, fields),
            "neighbour" => neighbour(fields),
            "xroute" => self.announced(fields),
            "route" => self.route(fields),
            _ => None,
        }
    }

    fn announced(&self, fields: Fields<'_>) -> Option<Entry> {
        Some(match self.destination(fields)? {
            Destination::Node(node) => Entry::Announced(node),
            Destination::Ipv4(_) => Entry::Foreign,
            Destination::Outside => Entry::AnnouncedDefault,
            Destination::Foreign => Entry::Foreign,
        })
    }

    fn route(&self, fields: Fields<'_>) -> Option<Entry> {
        let destination = self.destination(fields)?;
        let id = fields.get("id")?;
        let installed = flag(fields.get("installed")?, "yes", "no")?;
        let (metric, refmetric) = (fields.number("metric")?, fields.number("refmetric")?);
        let via: Ipv6Addr = match fields.get("via")?.parse().ok()? {
            std::net::IpAddr::V6(via) => via,
            std::net::IpAddr::V4(_) => return Some(Entry::Foreign),
        };
        let slot = fields.get("if")?.parse::<Slot>().ok();
        let Some(slot) = slot else {
            return Some(Entry::Foreign);
        };
        let via = node_of_link_local(via);
        let claim = |node| OriginClaim {
            node,
            slot,
            via,
            refmetric,
            originator: node_of_router_id_text(id),
            is_used: installed,
        };
        let Some(neighbour) = via else {
            return Some(match destination {
                Destination::Node(node) | Destination::Ipv4(node) => {
                    Entry::ClaimOnly(metric, claim(node))
                }
                Destination::Outside | Destination::Foreign => Entry::Foreign,
            });
        };
        Some(match destination {
            Destination::Node(node) => {
                let route = Route {
                    node,
                    slot,
                    via: neighbour,
                    installed,
                    metric,
                    refmetric,
                };
                Entry::Route(route, claim(node))
            }
            Destination::Ipv4(node) => Entry::ClaimOnly(metric, claim(node)),
            Destination::Outside => node_of_router_id_text(id).map_or(Entry::Foreign, |gateway| {
                Entry::Default(DefaultRoute {
                    gateway,
                    slot,
                    via: neighbour,
                    installed,
                    metric,
                    refmetric,
                })
            }),
            Destination::Foreign => Entry::Foreign,
        })
    }

    /// Parses the destination of a route; `None` if it cannot be read.
    fn destination(&self, fields: Fields<'_>) -> Option<Destination> {
        let range: IpNet = fields.get("prefix")?.parse().ok()?;
        let from: IpNet = fields.get("from")?.parse().ok()?;
        let range = match range {
            IpNet::V6(range) => range,
            IpNet::V4(range) => {
                let node = self.ipv4.and_then(|ipv4| ipv4.node_of_range(range));
                return Some(node.map_or(Destination::Foreign, Destination::Ipv4));
            }
        };
        let everywhere = from.prefix_len() == 0;
        Some(if everywhere {
            self.network
                .node_of_range(range)
                .map_or(Destination::Foreign, Destination::Node)
        } else if range.prefix_len() == 0 && from == IpNet::V6(self.network.range()) {
            Destination::Outside
        } else {
            Destination::Foreign
        })
    }
}

/// The destination of a route.
enum Destination {
    Node(Prefix),
    /// The IPv4 range of a node.
    Ipv4(Prefix),
    /// The default route for packets from the network's range.
    Outside,
    /// A range that belongs to no node, or a route bound to another source.
    Foreign,
}

fn flag(text: &str, yes: &str, no: &str) -> Option<bool> {
    if text == yes {
        Some(true)
    } else {
        (text == no).then_some(false)
    }
}

fn interface(name: &str, fields: Fields<'_>) -> Option<Entry> {
    let up = flag(fields.get("up")?, "true", "false")?;
    Some(
        name.parse()
            .map_or(Entry::Foreign, |slot| Entry::Interface(slot, up)),
    )
}

fn neighbour(fields: Fields<'_>) -> Option<Entry> {
    let address: Ipv6Addr = fields.get("address")?.parse().ok()?;
    let slot = fields.get("if")?.parse::<Slot>().ok();
    let rtt = match fields.get("rtt") {
        Some(rtt) => Some(milliseconds(rtt)?),
        None => None,
    };
    let reach = u16::from_str_radix(fields.get("reach")?, 16).ok()?;
    let (rxcost, txcost) = (fields.number("rxcost")?, fields.number("txcost")?);
    let cost = fields.number("cost")?;
    let Some((slot, peer)) = slot.zip(node_of_link_local(address)) else {
        return Some(Entry::Foreign);
    };
    Some(Entry::Neighbour(Neighbour {
        slot,
        peer,
        reach,
        rxcost,
        txcost,
        rtt,
        cost,
    }))
}

/// `12.345`: milliseconds with three decimals, as babeld prints an RTT.
fn milliseconds(text: &str) -> Option<Duration> {
    let (whole, thousandths) = text.split_once('.')?;
    let good =
        thousandths.len() == 3 && [whole, thousandths].iter().all(|digits| is_number(digits));
    if !good {
        return None;
    }
    let micros = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(thousandths.parse().ok()?)?;
    Some(Duration::from_micros(micros))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn node_of_router_id_text(text: &str) -> Option<Prefix> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let node = node_of_router_id(bytes?.try_into().ok()?)?;
    (router_id_text(node) == text).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::link_local;
    use proptest::prelude::*;

    /// The output of a babeld 1.12.1 with two neighbours: greeting and one dump.
    const REAL: &[u8] = include_bytes!("../tests/data/babeld-1.12.1-dump.txt");

    fn network() -> Network {
        Network::new("fd00:1:2::/48".parse().unwrap()).unwrap()
    }

    fn node(number: u32) -> Prefix {
        Prefix::new(number, 16).unwrap()
    }

    fn replies(bytes: &[u8]) -> Vec<Reply> {
        Decoder::new(network(), Network4::new("10.0.0.0/8".parse().unwrap())).feed(bytes)
    }

    #[track_caller]
    fn dump(lines: &[&str]) -> Dump {
        let text = format!("{}\nok\n", lines.join("\n"));
        match replies(text.as_bytes()).as_slice() {
            [Reply::Dump(dump)] => dump.clone(),
            other => panic!("{other:?}"),
        }
    }

    const ROUTE: &str = "add route 5598 prefix fd00:1:2:9::/64 from ::/0 installed yes \
        id 02:58:00:10:00:00:00:09 metric 192 refmetric 96 via fe80::10:0:8 if wrn0";

    #[test]
    fn a_real_babeld_greets_and_dumps() {
        let replies = replies(REAL);
        let [Reply::Greeting { version }, Reply::Dump(dump)] = replies.as_slice() else {
            panic!("{replies:?}")
        };
        assert_eq!(version, "babeld-1.12.1");
        assert_eq!((dump.foreign, dump.garbage), (0, 0));
        assert_eq!(
            dump.interfaces,
            [(Slot::Dialling(0), true), (Slot::Dialling(1), true)]
        );
        assert_eq!(dump.announced, [node(8)]);
        let peers: Vec<_> = dump
            .table
            .neighbours
            .iter()
            .map(|n| (n.peer, n.slot, n.reach, n.cost))
            .collect();
        assert_eq!(
            peers,
            [
                (node(9), Slot::Dialling(1), 0xffff, 96),
                (node(7), Slot::Dialling(0), 0xffff, 96)
            ]
        );
        assert_eq!(
            dump.table.neighbours[0].rtt,
            Some(Duration::from_micros(330))
        );
        let installed: Vec<_> = dump
            .table
            .routes
            .iter()
            .filter(|route| route.installed)
            .collect();
        assert_eq!(installed.len(), 2);
        assert_eq!(dump.table.routes.len(), 4);
        let origins: Vec<_> = dump
            .claims
            .iter()
            .map(|claim| (claim.node, claim.via))
            .collect();
        assert_eq!(
            origins,
            [(node(7), Some(node(7))), (node(9), Some(node(9)))]
        );
    }

    #[test]
    fn a_route_has_its_fields() {
        let route = Route {
            node: node(9),
            slot: Slot::Dialling(0),
            via: node(8),
            installed: true,
            metric: 192,
            refmetric: 96,
        };
        assert_eq!(dump(&[ROUTE]).table.routes, [route]);
    }

    #[test]
    fn an_unreachable_route_is_kept_with_its_metric() {
        let line = ROUTE.replace("metric 192", "metric 65535");
        assert_eq!(
            dump(&[&line]).table.routes[0].metric,
            policies::observation::INFINITY
        );
    }

    #[test]
    fn what_is_not_of_the_network_or_not_on_a_slot_is_counted_only() {
        let foreign = [
            ROUTE.replace("fd00:1:2:9::/64", "fd00:1:3:9::/64"),
            ROUTE.replace("fd00:1:2:9::/64", "::/0"),
            ROUTE.replace("fd00:1:2:9::/64", "10.0.0.0/8").replace("::/0", "0.0.0.0/0"),
            ROUTE.replace("::/0", "2001:db8::/32"),
            ROUTE.replace("wrn0", "eth0"),
            "add neighbour 1 address fe80::8 if wrn0 reach ffff ureach 0000 rxcost 96 txcost 96 cost 96"
                .into(),
            "add neighbour 1 address fe80::10:0:8 if eth0 reach ffff ureach 0000 rxcost 96 txcost 96 cost 96"
                .into(),
            "add interface eth0 up true".into(),
            "add xroute fd00::/8-::/0 prefix fd00::/8 from ::/0 metric 0".into(),
        ];
        let lines: Vec<_> = foreign.iter().map(String::as_str).collect();
        let dump = dump(&lines);
        assert_eq!((dump.foreign, dump.garbage), (9, 0));
        assert_eq!(dump.table, BabelTable::default());
    }

    #[test]
    fn the_exit_route_is_no_route_to_a_node_and_names_its_gateway() {
        let line = ROUTE.replace("fd00:1:2:9::/64 from ::/0", "::/0 from fd00:1:2::/48");
        let dump = dump(&[
            &line,
            "add xroute ::/0-fd00:1:2::/48 prefix ::/0 from fd00:1:2::/48 metric 0",
            &line.replace("02:58:00:10:00:00:00:09", "02:58:00:10:00:00:00:+9"),
            &line.replace("02:58:00:10:00:00:00:09", "02:58:00"),
            &line.replace("fd00:1:2::/48", "fd00:1::/32"),
        ]);
        let expected = DefaultRoute {
            gateway: node(9),
            slot: Slot::Dialling(0),
            via: node(8),
            installed: true,
            metric: 192,
            refmetric: 96,
        };
        assert_eq!(
            dump.exit_routes,
            ExitRoutes {
                routes: vec![expected],
                own: true
            }
        );
        assert_eq!((dump.foreign, dump.garbage, dump.announced), (3, 0, vec![]));
        assert_eq!(dump.table, BabelTable::default());
    }

    #[test]
    fn a_route_under_another_nodes_router_id_is_forged() {
        let lie = ROUTE.replace("00:00:09", "00:00:05");
        let retracted = lie.replace("metric 192", "metric 65535");
        let unused = dump(&[&lie.replace("installed yes", "installed no")]);
        let dump = dump(&[ROUTE, &lie, &retracted]);
        assert_eq!(dump.table.routes.len(), 3);
        let claim = OriginClaim {
            node: node(9),
            slot: Slot::Dialling(0),
            via: Some(node(8)),
            refmetric: 96,
            originator: Some(node(5)),
            is_used: true,
        };
        assert_eq!(dump.claims, [claim]);
        assert!(!unused.claims[0].is_used);
    }

    #[test]
    fn a_route_from_an_address_that_is_no_nodes_is_a_claim_and_no_route() {
        let dump = dump(&[&ROUTE.replace("fe80::10:0:8", "fe80::8")]);
        assert_eq!(dump.table, BabelTable::default());
        assert_eq!(dump.claims[0].via, None);
    }

    #[test]
    fn a_neighbour_that_announces_a_range_at_metric_0_claims_to_be_its_origin_by_ipv4_too() {
        let own = ROUTE.replace("refmetric 96", "refmetric 0");
        let ipv4 = own
            .replace("fd00:1:2:9::/64", "10.0.9.0/24")
            .replace("::/0", "0.0.0.0/0");
        let dump = dump(&[&own, &ipv4, &ipv4.replace("refmetric 0", "refmetric 96")]);
        assert_eq!((dump.table.routes.len(), dump.foreign), (1, 0));
        let claims: Vec<_> = dump.claims.iter().map(|claim| claim.node).collect();
        assert_eq!(claims, [node(9), node(9)]);
    }

    #[test]
    fn garbage_is_counted_and_the_rest_is_read() {
        let long = "x".repeat(MAX_LINE + 1);
        let garbage = [
            "add",
            "add route",
            "add route 1 prefix",
            "\u{0}\u{1}",
            "add neighbour 1 address ::1",
            &long,
            "add interface wrn0 up maybe",
            "hello world",
        ];
        let mut lines = garbage.to_vec();
        lines.push(ROUTE);
        let dump = dump(&lines);
        assert_eq!((dump.garbage, dump.table.routes.len()), (8, 1));
    }

    #[test]
    fn a_dump_begins_empty_after_each_reply() {
        let text = format!("{ROUTE}\nok\nok\n{ROUTE}\nbad\nok\n");
        let counts: Vec<_> = replies(text.as_bytes())
            .into_iter()
            .map(|reply| match reply {
                Reply::Dump(dump) => Some(dump.table.routes.len()),
                Reply::Greeting { .. } | Reply::Refused(_) => None,
            })
            .collect();
        assert_eq!(counts, [Some(1), Some(0), None, Some(0)]);
    }

    #[test]
    fn a_round_trip_time_has_three_decimals() {
        for (text, micros) in [
            ("0.289", Some(289)),
            ("36.001", Some(36_001)),
            ("1", None),
            ("1.5", None),
            ("-1.500", None),
            ("+1.500", None),
            ("99999999999999999999.000", None),
        ] {
            assert_eq!(
                milliseconds(text),
                micros.map(Duration::from_micros),
                "{text}"
            );
        }
    }

    #[test]
    fn neighbours_are_distinguished_by_their_link_local_address() {
        let line = format!(
            "add neighbour 1 address {} if wrnu.2 reach c000 ureach 0000 rxcost 96 txcost 256 rtt 0.204 rttcost 0 cost 99",
            link_local(node(9))
        );
        let neighbour = dump(&[&line]).table.neighbours[0];
        assert_eq!(
            (neighbour.peer, neighbour.reach, neighbour.txcost),
            (node(9), 0xc000, 256)
        );
        assert_eq!(neighbour.slot.to_string(), "wrnu.2");
    }

    proptest! {
        #[test]
        fn the_replies_do_not_depend_on_the_split(sizes in proptest::collection::vec(1..300usize, 1..30)) {
            let mut decoder = Decoder::new(network(), None);
            let mut rest = REAL;
            let mut split = Vec::new();
            for size in sizes {
                let (piece, left) = rest.split_at(size.min(rest.len()));
                split.extend(decoder.feed(piece));
                rest = left;
            }
            split.extend(decoder.feed(rest));
            prop_assert_eq!(split, replies(REAL));
        }

        #[test]
        fn hostile_bytes_never_panic(lines in proptest::collection::vec(
            "(add |BABEL |version |ok|bad )?(route|neighbour|xroute|interface)?( (id|prefix|from|via|if|metric|reach|rtt)? ?\\PC{0,12}){0,12}", 0..30)) {
            replies(lines.join("\n").as_bytes());
        }
    }
}
