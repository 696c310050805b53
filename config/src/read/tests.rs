//! Tests of the configuration: valid texts, and the errors of invalid ones.

use super::*;
use crate::template;
use proptest::prelude::*;

const GOOD: &str = "registry: https://registry.example:9443\n";

fn parse(text: &str) -> Result<Settings, ConfigError> {
    super::parse(Path::new("w.yaml"), text.as_bytes())
}

/// Returns the complaints about a good configuration with these lines after its first.
#[track_caller]
fn check(lines: &str, expected: &str) {
    check_text(&format!("{GOOD}{lines}"), expected);
}

#[track_caller]
fn check_text(text: &str, expected: &str) {
    let message = parse(text).map_or_else(
        |error| error.to_string(),
        |settings| format!("{settings:?}"),
    );
    assert_eq!(message, expected, "{text}");
}

fn defaults() -> Settings {
    Settings {
        registry: "https://registry.example:9443".into(),
        listen_udp: vec![1194],
        listen_tcp: vec![1194],
        endpoints: Vec::new(),
        neighbours: Vec::new(),
        interfaces: Vec::new(),
        transit: Transit::Normal,
        metered: false,
        gateway: false,
        policy: Rule::Gain,
        dry_run: false,
        max_accepted: None,
        tunnels_to_dial: None,
        openvpn_user: named("warren-openvpn"),
        babeld_user: named("warren-babel"),
        upnp: true,
        lan_discovery: true,
        private_endpoints: PrivateEndpointUse::Auto,
        metrics: vec![MetricsAddress::Tcp("127.0.0.1:9197".parse().unwrap())],
        metrics_from: Vec::new(),
        log: "info".into(),
    }
}

#[test]
fn the_registry_is_the_only_key_without_a_default() {
    assert_eq!(parse(GOOD).unwrap(), defaults());
}

#[test]
fn the_template_shows_the_defaults() {
    let text = template(
        "https://registry.example:9443",
        &named("warren-openvpn"),
        &named("warren-babel"),
    );
    assert_eq!(parse(&text).unwrap(), defaults());
    for key in KEYS.map(|key| key.name) {
        assert!(text.contains(&format!("{key}:")), "{key}");
    }
    let numbered = template(
        "https://registry.example:9443",
        &ChildUser::Id(64_001),
        &ChildUser::Id(64_002),
    );
    assert_eq!(parse(&numbered).unwrap().babeld_user, ChildUser::Id(64_002));
}

#[test]
fn every_key_is_read() {
    let settings = parse(
        "registry: https://[2001:db8::1]:1\n\
         listen: { udp: 0, tcp: 443 }\n\
         endpoints: [\"udp:192.0.2.1:1194\", \"tcp:[2001:db8::1]:443\"]\n\
         neighbours: [7/16, 0/1]\n\
         interfaces: [eth0]\n\
         transit: avoid\n\
         metered: false\n\
         gateway: true\n\
         policy: random\ndry-run: true\n\
         max-accepted: 0\ntunnels-to-dial: 2\n\
         child-users: { openvpn: 64001, babeld: nobody }\n\
         upnp: off\n\
         lan-discovery: off\n\
         private-endpoints: true\n\
         metrics: [/run/warren/metrics.sock, '[::1]:9197', overlay:9198]\n\
         metrics-from: [7/16, Monitor]\n\
         log: info,actors=debug\n",
    );
    let expected = Settings {
        registry: "https://[2001:db8::1]:1".into(),
        listen_udp: vec![],
        listen_tcp: vec![443],
        endpoints: ["udp:192.0.2.1:1194", "tcp:[2001:db8::1]:443"]
            .map(|e| e.parse().unwrap())
            .to_vec(),
        neighbours: ["7/16", "0/1"].map(|p| p.parse().unwrap()).to_vec(),
        interfaces: vec!["eth0".into()],
        transit: Transit::Avoid,
        metered: false,
        gateway: true,
        policy: Rule::Random,
        dry_run: true,
        max_accepted: Some(0),
        tunnels_to_dial: Some(2),
        openvpn_user: ChildUser::Id(64_001),
        babeld_user: named("nobody"),
        upnp: false,
        lan_discovery: false,
        private_endpoints: PrivateEndpointUse::All,
        metrics: vec![
            MetricsAddress::Unix("/run/warren/metrics.sock".into()),
            MetricsAddress::Tcp("[::1]:9197".parse().unwrap()),
            MetricsAddress::Overlay(9198),
        ],
        metrics_from: vec![
            NodeReference::Prefix("7/16".parse().unwrap()),
            NodeReference::Name("monitor".parse().unwrap()),
        ],
        log: "info,actors=debug".into(),
    };
    assert_eq!(settings.unwrap(), expected);
}

#[test]
fn a_complaint_names_file_line_key_value_and_what_would_be_right() {
    check(
        "listen:\n  udp: 70000\n",
        "w.yaml:3: listen.udp: value 70000: expected a port from 1 to 65535, a list of up to 4 different ones, or 0: do not accept",
    );
    check(
        "max-accepted: 251\n",
        "w.yaml:2: max-accepted: value 251: expected a number from 0 to 250",
    );
    check(
        "tunnels-to-dial: 0\n",
        "w.yaml:2: tunnels-to-dial: value 0: expected a number from 1 to 30",
    );
    check(
        "\n# why\ntransit: nomal\n",
        "w.yaml:4: transit: value \"nomal\": expected one of normal, avoid, leaf",
    );
    check(
        "transit: leaf\ngateway: true\n",
        "w.yaml:3: gateway: value true: expected false with transit: leaf, which carries no traffic of others",
    );
    check(
        "upnp: true\n",
        "w.yaml:2: upnp: value true: expected one of auto, off",
    );
    check(
        "private-endpoints: 1\n",
        "w.yaml:2: private-endpoints: value 1: expected one of auto, true, false",
    );
    check(
        "neighbours:\n- 7/16\n- 07/16\n",
        "w.yaml:4: neighbours[1]: value \"07/16\": expected a list of prefixes, such as [7/16]",
    );
    check(
        "neighbours: [7/16, 7/16]\n",
        "w.yaml:2: neighbours[1]: value \"7/16\": expected each only once",
    );
    check(
        "metrics: [127.0.0.1:9197, off]\n",
        &format!("w.yaml:2: metrics: a list: expected {METRICS_RIGHT}"),
    );
    check(
        "metrics: 9197\n",
        &format!("w.yaml:2: metrics: value 9197: expected {METRICS_RIGHT}"),
    );
    check(
        "metrics-from: [7/16, a.b]\n",
        &format!("w.yaml:2: metrics-from[1]: value \"a.b\": expected {METRICS_FROM}"),
    );
    check(
        "log:\n",
        &format!("w.yaml:2: log: no value: expected {LOG_RIGHT}"),
    );
    check(
        "interfaces: eth0\n",
        &format!("w.yaml:2: interfaces: value \"eth0\": expected {INTERFACES}"),
    );
    check(
        "child-users: { openvpn: 0 }\n",
        &format!("w.yaml:2: child-users.openvpn: value 0: expected {USER}"),
    );
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    check(
        "listen: { udp: 1, sctp: 2 }\n",
        "w.yaml:2: listen.sctp: unknown key: expected one of udp, tcp",
    );
    let keys = KEYS.map(|key| key.name).join(", ");
    check(
        "refresh: 5m\n",
        &format!("w.yaml:2: refresh: unknown key: expected one of {keys}"),
    );
    check(
        "7: x\n",
        &format!("w.yaml: 7: unknown key: expected one of {keys}"),
    );
}

#[test]
fn a_duplicate_key_is_rejected_at_its_second_line() {
    check(
        "log: info\nlog: debug\n",
        "w.yaml:3: log: given twice: expected each key once",
    );
    check(
        "listen:\n  udp: 1\n  tcp: 1\n  udp: 2\n",
        "w.yaml:5: udp: given twice: expected each key once",
    );
}

#[test]
fn all_errors_are_reported_in_the_order_of_the_file() {
    check_text(
        "log: ''\nregistry: http://x:1\n",
        &format!(
            "w.yaml:1: log: value \"\": expected {LOG_RIGHT}\n\
             w.yaml:2: registry: value \"http://x:1\": expected {REGISTRY}"
        ),
    );
}

#[test]
fn a_missing_registry_is_reported() {
    check_text(
        "log: info\n",
        &format!("w.yaml: registry: missing: expected {REGISTRY}"),
    );
}

#[test]
fn a_file_without_content_is_empty() {
    for text in ["", "\n\n", "# only a comment\n", "---\n"] {
        check_text(
            text,
            "w.yaml: is empty; at least `registry: https://HOST:PORT` is needed",
        );
    }
}

#[test]
fn a_syntax_error_is_reported_with_its_line() {
    check(
        "listen: { udp: 1\nlog: info\n",
        "w.yaml:3: not YAML: did not find expected ',' or '}'",
    );
    check(
        "log: [\n",
        "w.yaml:3: not YAML: did not find expected node content",
    );
    check(
        "\tlog: info\n",
        "w.yaml:2: not YAML: found a tab character that violates indentation",
    );
}

#[test]
fn a_document_of_another_kind_is_refused() {
    let right = "expected keys and values, such as registry: https://HOST:PORT";
    check_text("- a\n", &format!("w.yaml:1: the document: a list: {right}"));
}

#[test]
fn what_is_no_text_or_too_long_is_refused() {
    let expected = "w.yaml: is no UTF-8 text of at most 65536 bytes";
    let file = Path::new("w.yaml");
    assert_eq!(
        super::parse(file, b"log: \xff").unwrap_err().to_string(),
        expected
    );
    assert_eq!(
        super::parse(file, &[b' '; 65_537]).unwrap_err().to_string(),
        expected
    );
}

#[test]
fn addresses_that_nobody_could_dial_are_no_endpoints() {
    for bad in [
        "udp:127.0.0.1:1",
        "udp:0.0.0.0:1",
        "tcp:[fe80::1]:1",
        "udp:192.0.2.1:0",
        "x",
    ] {
        let text = format!("{GOOD}endpoints: [\"{bad}\"]\n");
        assert!(parse(&text).is_err(), "{bad}");
    }
    let private = format!("{GOOD}endpoints: [\"udp:10.0.0.1:1\"]\n");
    assert_eq!(parse(&private).unwrap().endpoints.len(), 1);
    assert!(parse(&format!("{private}private-endpoints: false\n")).is_err());
}

#[test]
fn a_log_filter_has_a_level_in_each_part() {
    for (filter, good) in [
        ("debug", true),
        ("off", true),
        ("info,actors=debug,os::process=trace", true),
        ("inof", false),
        ("info,actors", false),
        ("info,", false),
        ("info,=debug", false),
        ("info,actors=loud", false),
    ] {
        let text = format!("{GOOD}log: \"{filter}\"\n");
        assert_eq!(parse(&text).is_ok(), good, "{filter}");
    }
}

#[test]
fn a_registry_is_a_host_with_a_port() {
    for (url, good) in [
        ("https://a:1", true),
        ("https://10.0.0.1:9443", true),
        ("https://[::1]:9443", true),
        ("https://a", false),
        ("https://a:0", false),
        ("https://a:65536", false),
        ("https://:1", false),
        ("https://a:1/", false),
        ("https://u@a:1", false),
        ("https://a b:1", false),
        ("https://1.2.3:1", false),
        ("https://[::1:1", false),
        ("https://a..b:1", false),
        ("https://a:01", false),
    ] {
        assert_eq!(
            parse(&format!("registry: \"{url}\"\n")).is_ok(),
            good,
            "{url}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("warren.yaml");
    let error = load(&missing).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: cannot read the configuration", missing.display())
    );
    assert!(std::error::Error::source(&error).is_some());
    let error = load(folder.path()).unwrap_err();
    let expected = format!(
        "{}: is no file; a configuration in YAML belongs there",
        folder.path().display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.exit_code(), 78);
    std::fs::write(&missing, GOOD).unwrap();
    assert_eq!(load(&missing).unwrap(), defaults());
}

#[test]
fn aliases_that_would_grow_without_bound_are_refused_quickly() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (last, next) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        let items = vec![format!("*{last}"); 10].join(", ");
        text.push_str(&format!("{next}: &{next} [{items}]\n"));
    }
    assert!(parse(&text).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(registry|listen|log|endpoints|upnp)?[:\\[\\]{},&*!| \"'#\\n\\t-]{0,6}\\PC{0,60}") {
        let _ = parse(&text);
    }

    #[test]
    fn every_complaint_is_one_line(key in "\\PC{1,20}", value in "\\PC{0,80}") {
        let text = format!("{GOOD}{key:?}: {value:?}\n");
        if let Err(ConfigError::Values { complaints, .. }) = parse(&text) {
            for complaint in complaints {
                prop_assert!(!complaint.to_string().contains(['\n', '\r']), "{complaint}");
            }
        }
    }
}
