//! Three nodes, two with names: each node shows the names of the others, also when it starts alone without the registry, and
//! a new name after a renewal.

use anyhow::{Context, Result};
use lab::{Lab, Node, Options, is_skipped_without_root, wait::wait_until};
use std::{fs, time::Duration};
use wire::control::{
    NAMES_PATH, NamesDocument, PEERS_PATH, PeersDocument, STATUS_PATH, StatusDocument,
    TUNNELS_PATH, TunnelsDocument,
};

/// Longest time until a node knows the names of the others.
const LEARN_TIMEOUT: Duration = Duration::from_secs(60);
/// So short that a renamed node renews its certificate within a third of it.
const ANNOUNCEMENT_TTL: Duration = Duration::from_secs(30);

fn start_network() -> Result<Lab> {
    let lab = Lab::build(Options {
        nodes: 3,
        tunnels_to_dial: Some(2),
        announcement_ttl: Some(ANNOUNCEMENT_TTL),
        ..Options::default()
    })?;
    lab.init_registry()?;
    lab.start_registry()?;
    lab.node(0)?.join(&lab.invite(&["--name", "Web"])?)?;
    lab.node(1)?.join(&lab.invite(&["--name", "printer"])?)?;
    lab.node(2)?.join(&lab.invite(&[])?)?;
    lab.start_and_converge()?;
    Ok(lab)
}

/// The names that a node knows, sorted by prefix.
fn names(node: &Node) -> Result<Vec<String>> {
    let known: NamesDocument = node.control_document(NAMES_PATH)?;
    Ok(known
        .nodes
        .into_iter()
        .filter_map(|node| node.name)
        .collect())
}

fn wait_for_names(node: &Node, expected: &[&str]) -> Result<()> {
    let are_known = || (names(node).ok()? == expected).then_some(());
    wait_until(LEARN_TIMEOUT, are_known)
        .with_context(|| node.describe(&format!("knows {:?}, not {expected:?}", names(node))))
}

/// Checks that the documents of the node show the names of its peers, and its own.
fn check_documents(lab: &Lab, node: &Node) -> Result<()> {
    let expected_name = |prefix: &str| {
        let named = [(0, "web"), (1, "printer")];
        let mut named = named.into_iter();
        let found = named.find(|(index, _)| {
            lab.node(*index)
                .is_ok_and(|node| node.prefix().is_ok_and(|known| known == prefix))
        });
        found.map(|(_, name)| name.to_owned())
    };
    let status: StatusDocument = node.control_document(STATUS_PATH)?;
    assert_eq!(status.name, expected_name(&status.prefix));
    let tunnels = || {
        let document: TunnelsDocument = node.control_document(TUNNELS_PATH).ok()?;
        (!document.tunnels.is_empty()).then_some(document.tunnels)
    };
    for tunnel in wait_until(LEARN_TIMEOUT, tunnels).context("no tunnel is shown")? {
        assert_eq!(tunnel.peer_name, expected_name(&tunnel.peer));
    }
    let peers = || {
        let document: PeersDocument = node.control_document(PEERS_PATH).ok()?;
        (!document.peers.is_empty()).then_some(document.peers)
    };
    for peer in wait_until(LEARN_TIMEOUT, peers).context("no peers are shown")? {
        assert_eq!(peer.name, expected_name(&peer.prefix));
    }
    Ok(())
}

/// Checks what the commands print on the node without a name, and that arguments that name nobody are errors.
fn check_commands(lab: &Lab, node: &Node) -> Result<()> {
    let web = format!("web ({})", lab.node(0)?.prefix()?);
    for verb in ["tunnels", "peers", "routes"] {
        // Routes are read a moment after the first tunnel is shown.
        let is_shown = || {
            let shown = node.warren_command(&[verb]).ok()?;
            shown.contains(&web).then_some(())
        };
        wait_until(LEARN_TIMEOUT, is_shown).with_context(|| format!("{verb} lacks {web}"))?;
    }
    let by_name = node.warren_command(&["why", "web"])?;
    assert!(
        by_name.contains(&web) && !by_name.contains("printer"),
        "{by_name}"
    );
    // The state of the node may change between two commands, and then does so for both names.
    let are_same = || {
        let by_prefix = node.warren_command(&["why", lab.node(0).ok()?.prefix().ok()?]);
        let by_name = node.warren_command(&["why", "web"]);
        (by_prefix.ok()? == by_name.ok()?).then_some(())
    };
    wait_until(LEARN_TIMEOUT, are_same).context("a name and its prefix have other answers")?;
    for nobody in ["99/16", "wrn77", "nobody", "a b"] {
        let error = node.warren_command(&["why", nobody]).err();
        let error = error.with_context(|| format!("why {nobody} succeeded"))?;
        assert!(format!("{error:#}").contains(nobody), "{error:#}");
    }
    let hosts = node.warren_command(&["hosts", "--domain", "example.org"])?;
    let line = |index: usize, name: &str| -> Result<String> {
        let address = lab.node(index)?.identity()?.address;
        Ok(format!("{address} {name}.example.org {name}"))
    };
    let expected = [line(1, "printer")?, line(0, "web")?];
    assert_eq!(hosts.trim_end(), expected.join("\n"));
    Ok(())
}

#[test]
fn names_are_known_without_the_registry_and_after_a_restart_and_change_with_a_renewal() -> Result<()>
{
    if is_skipped_without_root("node_names") {
        return Ok(());
    }
    let lab = start_network()?;
    for node in lab.nodes() {
        wait_for_names(node, &["web", "printer"])?;
        check_documents(&lab, node)?;
    }
    let nameless = lab.node(2)?;
    check_commands(&lab, nameless)?;
    let prefix = lab.node(0)?.prefix()?;
    let info = format!("warren_node_info{{prefix=\"{prefix}\",name=\"web\",");
    assert!(lab.node(0)?.scrape()?.contains(&info));

    lab.stop_registry();
    lab.stop_nodes();
    let log = fs::read_to_string(nameless.log_file())?;
    let names_peer = |line: &str| line.contains("name=web") || line.contains("name=printer");
    let mut closed = log.lines().filter(|line| line.contains("tunnel closed"));
    assert!(
        closed.any(names_peer),
        "no closed tunnel has the name of its peer: {log}"
    );
    nameless.start()?;
    wait_for_names(nameless, &["web", "printer"])?;

    lab.start_registry()?;
    lab.node(0)?.start()?;
    lab.node(1)?.start()?;
    lab.wait_for_convergence()?;
    lab.registry_command("rename", &["web", "WWW"])?;
    for node in lab.nodes() {
        wait_for_names(node, &["www", "printer"])?;
    }
    Ok(())
}
