//! Writes a configuration for `join`: every key with its default and what it means.

use crate::{
    ChildUser,
    read::{BABELD_USER, LOG, METRICS, OPENVPN_USER, PORT},
};

/// The text of a `warren.yaml` that asks `registry` (`https://HOST:PORT`) and runs its children as
/// these users.
pub fn template(registry: &str, openvpn: &ChildUser, babeld: &ChildUser) -> String {
    let (openvpn, babeld) = (user(openvpn), user(babeld));
    format!(
        "\
# warren.yaml: one node. Unknown keys are refused; what is left out has the value shown here.

# Where the network's registry is asked. The only key without a default.
registry: {registry}

# Ports on which our OpenVPN servers accept tunnels, each one or a list, such as tcp: [1194, 443]. 0: do not accept.
listen: {{ udp: {PORT}, tcp: {PORT} }}

# Addresses that others shall dial, when we know better than what is found out by itself,
# such as [\"udp:192.0.2.1:1194\", \"tcp:[2001:db8::1]:1194\"].
endpoints: []

# Pinned peers, by prefix, such as [7/16]: their tunnels are always kept.
neighbours: []

# Links on which babeld itself speaks, such as [eth0].
interfaces: []

# Whether others may route through us: normal, avoid (only where nothing else is left), leaf (never).
transit: normal

# Send as little as possible, because the uplink is metered: dial two tunnels, accept none, carry nobody else's traffic, and
# notice a dead peer later.
metered: false

# Carry others' packets out of the network by this host's own IPv6 default route. Both this and the network's
# parameter gateways must say so, and the provider must send the network's range to this host.
gateway: false

# By what tunnels are chosen: gain, or random (by chance alone, to compare with).
policy: gain

# Decide and log, but open and close no tunnel; accept all the same.
dry-run: false

# Fewer accepted tunnels (0 to 250) or dialled tunnels (1 to 30) than the network allows.
# max-accepted: 30
# tunnels-to-dial: 10

# Who the children run as, by name or number; the names shipped are {OPENVPN_USER} and {BABELD_USER}.
child-users: {{ openvpn: {openvpn}, babeld: {babeld} }}

# Ask the gateway for port mappings (PCP, NAT-PMP, UPnP): auto or off.
upnp: auto

# Find other nodes on the LANs of this host, and dial them there: auto or off.
lan-discovery: auto

# Announce and dial private addresses (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7): auto (where they can work),
# true (always), false (only if the network's parameter says so).
private-endpoints: auto

# Where metrics are served: ADDRESS:PORT, overlay:PORT (this node's address in the network, for its members), the absolute
# path of a unix socket, or off; several as a list.
metrics: {METRICS}

# The nodes that may read metrics at overlay:PORT, by prefix or name, such as [7/16, monitor]; an empty list lets all members.
metrics-from: []

# Which log lines are written: error, warn, info, debug, trace, or a filter such as info,actors=debug.
log: {LOG}
"
    )
}

fn user(user: &ChildUser) -> String {
    match user {
        ChildUser::Name(name) => name.clone(),
        ChildUser::Id(id) => id.to_string(),
    }
}
