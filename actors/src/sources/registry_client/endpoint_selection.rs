//! Selects which endpoints are announced, if a host has more than an announcement holds.

use policies::names::Endpoint;
use std::collections::BTreeMap;

/// Returns at most `max` of these endpoints, in their order. Each combination of transport, port and address family keeps
/// the same number, so that many addresses of one kind, such as those of a server with a range of its own, leave room for the
/// others: a peer may have only IPv4, or a network that passes only TCP to port 443.
pub(super) fn select(endpoints: Vec<Endpoint>, max: usize) -> Vec<Endpoint> {
    let mut counts = BTreeMap::new();
    let mut ranked: Vec<_> = endpoints
        .into_iter()
        .enumerate()
        .map(|(position, endpoint)| {
            let address = endpoint.address;
            let kind = (endpoint.transport, address.port(), address.is_ipv6());
            let count: &mut usize = counts.entry(kind).or_default();
            *count += 1;
            (*count, position, endpoint)
        })
        .collect();
    ranked.sort_by_key(|(count, position, _)| (*count, *position));
    ranked.truncate(max);
    ranked.sort_by_key(|(_, position, _)| *position);
    ranked.into_iter().map(|(.., endpoint)| endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(endpoints: &[&str], max: usize, expected: &[&str]) {
        let parse = |texts: &[&str]| -> Vec<Endpoint> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(select(parse(endpoints), max), parse(expected));
    }

    const FEW: [&str; 3] = [
        "udp:45.67.0.1:1194",
        "udp:[2a00::1]:1194",
        "tcp:45.67.0.1:1194",
    ];

    #[test]
    fn few_endpoints_are_all_kept_in_their_order() {
        check(&FEW, 3, &FEW);
        check(&[], 3, &[]);
    }

    #[test]
    fn many_addresses_of_one_kind_leave_room_for_the_others() {
        let mut many = vec![
            "udp:[2a00::1]:1194",
            "udp:[2a00::2]:1194",
            "udp:[2a00::3]:1194",
            "udp:[2a00::4]:1194",
            "udp:45.67.0.1:1194",
            "tcp:[2a00::1]:1194",
            "tcp:[2a00::2]:1194",
            "tcp:45.67.0.1:443",
        ];
        check(
            &many,
            5,
            &[
                "udp:[2a00::1]:1194",
                "udp:[2a00::2]:1194",
                "udp:45.67.0.1:1194",
                "tcp:[2a00::1]:1194",
                "tcp:45.67.0.1:443",
            ],
        );
        // The first of each kind is the best one.
        many.swap(0, 1);
        check(&many, 2, &["udp:[2a00::2]:1194", "udp:45.67.0.1:1194"]);
    }

    #[test]
    fn each_port_is_kept_before_further_addresses_are() {
        let hosts = ["45.67.0.1", "45.67.0.2", "45.67.0.3", "45.67.0.4"];
        let all = ["udp:HOST:1194", "tcp:HOST:1194", "tcp:HOST:443"];
        let all = all.map(|server| hosts.map(|host| server.replace("HOST", host)));
        let all: Vec<&str> = all.iter().flatten().map(String::as_str).collect();
        let expected = [
            "udp:45.67.0.1:1194",
            "udp:45.67.0.2:1194",
            "tcp:45.67.0.1:1194",
            "tcp:45.67.0.2:1194",
            "tcp:45.67.0.1:443",
        ];
        check(&all, 5, &expected);
    }
}
