//! What `warren status` and `warren doctor` show, and the table of faults that is printed at the end.

use anyhow::{Context, Result, ensure};
use lab::{Node, process::warren_program, wait::wait_until};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Longest wait until a fault is shown.
pub const SHOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// What a command printed, and its exit code.
pub struct Printed {
    pub code: i32,
    pub text: String,
}

/// The outcome of each check of `warren doctor`, by its name, and the exit code.
pub struct Examined {
    pub code: i32,
    pub outcomes: BTreeMap<String, String>,
}

/// Runs warren in a node's namespace.
pub fn warren(node: &Node, arguments: &str) -> Result<Printed> {
    let (program, root) = (warren_program(), node.root().display().to_string());
    let script = format!("{} {arguments} --root {root}; echo $?", program.display());
    split_code(&node.command("sh", &["-c", &script])?)
}

/// Runs warren in the namespace of the test.
pub fn warren_here(arguments: &[&str]) -> Result<Printed> {
    let output = Command::new(warren_program()).args(arguments).output()?;
    Ok(Printed {
        code: output.status.code().context("warren was killed")?,
        text: String::from_utf8(output.stdout)?,
    })
}

/// Separates the exit code, which `echo $?` printed last.
pub fn split_code(printed: &str) -> Result<Printed> {
    let printed = printed.trim_end();
    let (text, code) = printed.rsplit_once('\n').unwrap_or(("", printed));
    Ok(Printed {
        code: code.parse().with_context(|| printed.to_owned())?,
        text: text.to_owned(),
    })
}

/// Reads the document that `warren doctor --json` printed.
pub fn examined(printed: &Printed) -> Result<Examined> {
    let document: Value = serde_json::from_str(&printed.text).context(printed.text.clone())?;
    let checks = document["checks"].as_array().context("no checks")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = |check: &Value| (text(&check["id"]), text(&check["outcome"]));
    Ok(Examined {
        code: printed.code,
        outcomes: checks.iter().map(outcome).collect(),
    })
}

pub fn doctor(node: &Node) -> Result<Examined> {
    examined(&warren(node, "doctor --json")?)
}

/// The table of faults.
#[derive(Default)]
pub struct Table {
    pub rows: Vec<String>,
}

impl Table {
    fn add(&mut self, fault: &str, status: &str, doctor: &str, code: i32) {
        let row = format!("{fault:<48} {status:<28} {doctor:<34} exit {code}");
        self.rows.push(row);
    }

    /// Checks that `warren doctor` names a fault by this check.
    pub fn check_doctor(
        &mut self,
        fault: &str,
        seen: &Examined,
        check: &str,
        outcome: &str,
    ) -> Result<()> {
        let shown = seen.outcomes.get(check).map(String::as_str);
        ensure!(
            shown == Some(outcome),
            "{fault}: {check} is {shown:?}, expected {outcome}"
        );
        let has_failed = seen.outcomes.values().any(|outcome| outcome == "failed");
        ensure!(
            seen.code == i32::from(has_failed),
            "{fault}: exit code {}",
            seen.code
        );
        self.add(fault, "-", &format!("{check}: {outcome}"), seen.code);
        Ok(())
    }

    /// Waits until `warren status` shows a finding, and checks its exit code and that `warren doctor` has the same finding.
    /// Returns the time until then.
    pub fn check_status(
        &mut self,
        fault: &str,
        node: &Node,
        findings: &[&str],
        code: i32,
    ) -> Result<Duration> {
        let start = Instant::now();
        let is_shown = || {
            let printed = warren(node, "status --json").ok()?;
            let document: Value = serde_json::from_str(&printed.text).ok()?;
            let shown = document["health"]["findings"].as_array()?.iter();
            let ids: Vec<_> = shown.filter_map(|finding| finding["id"].as_str()).collect();
            let id = findings.iter().find(|id| ids.contains(id))?;
            (printed.code == code).then(|| (*id).to_owned())
        };
        let id = wait_until(SHOWN_TIMEOUT, is_shown)
            .with_context(|| node.describe(&format!("does not show {findings:?}: {fault}")))?;
        let elapsed = start.elapsed();
        let examined = doctor(node)?;
        let check = format!("health.{id}");
        let outcome = examined.outcomes.get(&check).cloned().unwrap_or_default();
        ensure!(!outcome.is_empty(), "{fault}: warren doctor lacks {check}");
        self.add(fault, &id, &format!("{check}: {outcome}"), code);
        Ok(elapsed)
    }
}

/// Writes a file and the folders above it.
pub fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    Ok(std::fs::write(file, text)?)
}
