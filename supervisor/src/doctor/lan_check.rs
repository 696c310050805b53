//! Checks whether other nodes on the LANs of this host can be found.

use super::{Check, Examined};

pub(super) fn check(examined: &Examined) -> Check {
    const ID: &str = "lan";
    let Some(status) = examined.daemon.status() else {
        return Check::skipped(ID, "the daemon does not run, so no LAN is searched");
    };
    let lan = &status.lan;
    if !lan.enabled {
        return Check::skipped(
            ID,
            "LANs are not searched for other nodes: lan-discovery is off",
        );
    }
    if lan.has_copy {
        let seen = "another host on the LAN has this node's prefix and the network's key";
        let advice =
            "one of the two is a copy; give it an identity of its own: warren join --replace -";
        return Check::failed(ID, seen, advice);
    }
    let failed = lan
        .links
        .iter()
        .find_map(|link| Some((&link.link, link.error.as_ref()?)));
    if let Some((link, error)) = failed {
        let seen = format!("{link} cannot be searched for other nodes: {error}");
        let advice = "find the program that has UDP port 328 (ss -lunp), or set lan-discovery: off";
        return Check::warning(ID, seen, advice);
    }
    let links: Vec<_> = lan.links.iter().map(|link| link.link.as_str()).collect();
    let seen = match (links.as_slice(), lan.nodes.len()) {
        ([], _) => "no link of this host leads to a LAN".to_owned(),
        (_, 0) => format!(
            "no other node answers on {}; if there is one, its firewall or this one's drops UDP port 328",
            links.join(", ")
        ),
        (_, count) => format!("nodes that answer on {}: {count}", links.join(", ")),
    };
    Check::ok(ID, seen)
}
