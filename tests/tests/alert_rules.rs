//! The alerting rules: which metrics they use, that each has a runbook and a test with its fault and one without.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use serde_yaml::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};

/// The parts of each runbook.
const PARTS: [&str; 4] = [
    "**Symptom.** ",
    "**Meaning.** ",
    "**Commands.** ",
    "**What to do.** ",
];

fn read(path: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    fs::read_to_string(file).unwrap()
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_sequence().cloned().unwrap_or_default()
}

/// All rules, recording and alerting.
fn rules() -> Vec<Value> {
    let groups = list(&yaml("dashboards/prometheus/warren.rules.yml")["groups"]);
    groups
        .iter()
        .flat_map(|group| list(&group["rules"]))
        .collect()
}

fn alerts() -> Vec<(String, Value)> {
    let named = |rule: Value| Some((rule["alert"].as_str()?.to_owned(), rule));
    rules().into_iter().filter_map(named).collect()
}

/// Names of our metrics in a text; not those of recording rules, which contain colons.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words
        .filter(|word| word.starts_with("warren_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn rules_use_documented_metrics_only() {
    let documents = read("docs/METRICS.md") + &read("docs/REGISTRY.md");
    let documented = metrics(&documents);
    for rule in rules() {
        let expr = rule["expr"].as_str().unwrap();
        let unknown: Vec<_> = metrics(expr).difference(&documented).copied().collect();
        assert_eq!(unknown, [""; 0], "{expr}");
    }
}

#[test]
fn rules_depend_on_no_name_of_a_job() {
    for rule in rules() {
        let expr = rule["expr"].as_str().unwrap();
        assert!(!expr.contains("job=") && !expr.contains("job!="), "{expr}");
    }
}

#[test]
fn each_alert_has_a_runbook_with_all_parts_and_each_runbook_an_alert() {
    let runbooks = read("docs/RUNBOOKS.md");
    let sections: Vec<_> = runbooks.split("\n### ").skip(1).collect();
    let title = |section: &&str| section.lines().next().unwrap().to_owned();
    let titles: BTreeSet<_> = sections.iter().map(title).collect();
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(titles, names);
    for section in sections {
        let places = PARTS.map(|part| section.find(part));
        assert!(
            places.is_sorted() && places.iter().all(Option::is_some),
            "{}: {places:?}",
            title(&section)
        );
    }
    for (name, rule) in alerts() {
        let url = format!("docs/RUNBOOKS.md#{}", name.to_lowercase());
        let annotations = &rule["annotations"];
        assert_eq!(annotations["runbook_url"].as_str(), Some(url.as_str()));
        for key in ["summary", "description"] {
            assert!(annotations[key].is_string(), "{name}: no {key}");
        }
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}"
        );
    }
}

/// Degraded findings without an alert of their own, and the alert that an operator gets instead.
const NOT_IN_RULES: [(&str, &str); 5] = [
    (
        "registry_away",
        "WarrenRegistryAway, once and not once a node",
    ),
    ("certificate_expires", "WarrenCertificateExpires"),
    ("clock_off", "WarrenClockOff"),
    ("process_restarting", "WarrenProcessFlapping"),
    (
        "port_mapping_missing",
        "WarrenLeaseLost; a router that never maps ports is no fault",
    ),
];

#[test]
fn each_degraded_finding_has_an_alert() {
    let rules: Vec<_> = alerts().into_iter().map(|(_, rule)| rule).collect();
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    let exprs: String = rules
        .iter()
        .map(|rule| rule["expr"].as_str().unwrap())
        .collect();
    let mut count = 0;
    for line in read("docs/OPERATIONS.md").lines() {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, finding, "degraded", ..] = columns[..] else {
            continue;
        };
        let finding = finding.trim_matches('`');
        let elsewhere = NOT_IN_RULES.iter().find(|(name, _)| *name == finding);
        let is_alerted = match elsewhere {
            Some((_, alert)) => names.contains(alert.split([',', ';']).next().unwrap()),
            None => exprs.contains(finding),
        };
        assert!(is_alerted, "no alert for {finding}");
        count += 1;
    }
    assert!(count >= 10, "only {count} degraded findings");
}

#[test]
fn each_alert_is_tested_with_its_fault_and_without() {
    let tests = list(&yaml("dashboards/prometheus/warren.tests.yml")["tests"]);
    let checks = tests.iter().flat_map(|test| list(&test["alert_rule_test"]));
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for check in checks {
        let name = check["alertname"].as_str().unwrap().to_owned();
        match list(&check["exp_alerts"]).is_empty() {
            true => silent.insert(name),
            false => fires.insert(name),
        };
    }
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(fires, names);
    assert_eq!(silent, names);
}
