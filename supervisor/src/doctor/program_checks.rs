//! Checks of programs, users, processes and units.

use super::{Check, Examined, is_root};
use crate::host::PROGRAM_FOLDERS;
use config::{ChildUser, Settings};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest usable release of OpenVPN.
const MIN_OPENVPN: (u32, u32) = (2, 6);

/// The oldest usable release of babeld.
const MIN_BABELD: (u32, u32) = (1, 11);

/// CAP_NET_ADMIN (capabilities(7)), by which links and routes can be changed.
const CAP_NET_ADMIN: u32 = 12;

pub(super) fn checks(examined: &Examined, settings: Option<&Settings>) -> Vec<Check> {
    let mut checks = vec![
        version(examined, "openvpn", "--version", MIN_OPENVPN),
        version(examined, "babeld", "-V", MIN_BABELD),
        users(settings),
        capabilities(examined),
        other_babeld(examined),
    ];
    checks.extend(["babeld", "openvpn"].map(|unit| debian_unit(examined, unit)));
    checks
}

/// Finds a program below the root of the system, and compares its version.
fn version(examined: &Examined, program: &str, argument: &str, least: (u32, u32)) -> Check {
    let advice = format!("install it: apt install {program}");
    let Some(path) = find_program(&examined.system, program) else {
        let seen = format!("there is no {program} in {PROGRAM_FOLDERS}");
        return Check::failed(program, seen, &advice);
    };
    let (major, minor) = least;
    match run_for_version(&path, argument) {
        Some((version, number)) if number >= least => {
            Check::ok(program, format!("{} is version {version}", path.display()))
        }
        Some((version, _)) => Check::failed(
            program,
            format!(
                "{} is version {version}, needed is {major}.{minor} or newer",
                path.display()
            ),
            &format!("install {program} {major}.{minor} or newer"),
        ),
        None => Check::failed(
            program,
            format!("{} does not say its version", path.display()),
            &advice,
        ),
    }
}

fn find_program(system: &Path, program: &str) -> Option<PathBuf> {
    let folders = PROGRAM_FOLDERS.split(':');
    let mut paths = folders.map(|folder| system.join(folder.trim_start_matches('/')).join(program));
    paths.find(|path| path.is_file())
}

/// Runs a program that prints its version, and returns the version as text and as numbers.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a short-lived command, not the daemon, which spawns in one place only"
)]
fn run_for_version(path: &Path, argument: &str) -> Option<(String, (u32, u32))> {
    let mut command = Command::new(path);
    let output = command.arg(argument).stdin(Stdio::null()).output().ok()?;
    let printed = [output.stdout, output.stderr].concat();
    parse_version(&String::from_utf8_lossy(&printed))
}

/// Returns the first version in a text, such as 2.6.14 in `OpenVPN 2.6.14 x86_64` and 1.12.1 in `babeld-1.12.1`.
fn parse_version(text: &str) -> Option<(String, (u32, u32))> {
    let mut words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.find_map(|word| {
        let mut numbers = word.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        Some((word.to_owned(), (major, minor)))
    })
}

fn users(settings: Option<&Settings>) -> Check {
    let default = |name: &str| ChildUser::Name(name.to_owned());
    let wanted = match settings {
        Some(settings) => [settings.openvpn_user.clone(), settings.babeld_user.clone()],
        None => [default("warren-openvpn"), default("warren-babel")],
    };
    let is_missing = |user: &ChildUser| match user {
        ChildUser::Id(_) => None,
        ChildUser::Name(name) => {
            let found = nix::unistd::User::from_name(name).ok().flatten();
            found.is_none().then(|| name.clone())
        }
    };
    let missing: Vec<_> = wanted.iter().filter_map(is_missing).collect();
    if missing.is_empty() {
        return Check::ok("users", "the users of OpenVPN and babeld exist");
    }
    let seen = format!("these users do not exist: {}", missing.join(", "));
    let advice = "install the package, or create them: useradd --system NAME; or name others under child-users";
    match settings {
        Some(_) => Check::failed("users", seen, advice),
        None => Check::warning("users", seen, advice),
    }
}

fn capabilities(examined: &Examined) -> Check {
    const ID: &str = "capabilities";
    if !is_root() {
        return Check::skipped(ID, "needs root");
    }
    let status = examined.read("proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    match effective {
        Some(bits) if bits >> CAP_NET_ADMIN & 1 == 1 => {
            Check::ok(ID, "root may change links and routes")
        }
        Some(_) => Check::failed(
            ID,
            "root lacks CAP_NET_ADMIN here",
            "give the container the capability NET_ADMIN",
        ),
        None => Check::skipped(ID, "the capabilities cannot be read"),
    }
}

impl Examined {
    /// Returns the pids of processes of this network namespace with this name (the first 15 characters).
    fn pids(&self, name: &str) -> Vec<u32> {
        let namespace =
            |pid: &str| fs::read_link(self.system.join("proc").join(pid).join("ns/net")).ok();
        let own = namespace("self");
        let pids = self.list("proc").into_iter().filter(|pid| {
            self.read(&format!("proc/{pid}/comm")).as_deref() == Some(name) && namespace(pid) == own
        });
        pids.filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Returns the pid of the parent of a process.
    fn parent(&self, pid: u32) -> Option<u32> {
        let status = self.read(&format!("proc/{pid}/status"))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent?.trim().parse().ok()
    }

    /// Returns whether a process of this network namespace has this name.
    pub(super) fn runs(&self, name: &str) -> bool {
        !self.pids(name).is_empty()
    }
}

fn other_babeld(examined: &Examined) -> Check {
    let daemon = examined.daemon.status().map(|status| status.pid);
    let others = examined.pids("babeld").into_iter();
    let others: Vec<_> = others
        .filter(|pid| daemon.is_none() || examined.parent(*pid) != daemon)
        .map(|pid| pid.to_string())
        .collect();
    if others.is_empty() {
        return Check::ok("other_babeld", "no other babeld runs");
    }
    let seen = format!("another babeld runs, pid {}", others.join(", "));
    Check::failed(
        "other_babeld",
        seen,
        "stop it: systemctl disable --now babeld",
    )
}

/// Returns whether a unit of Debian's package is enabled, which would start a process of its own at the next boot.
fn debian_unit(examined: &Examined, unit: &str) -> Check {
    let id = format!("unit_{unit}");
    let folder = "etc/systemd/system/multi-user.target.wants";
    let is_of_unit =
        |name: &String| *name == format!("{unit}.service") || name.starts_with(&format!("{unit}@"));
    let enabled: Vec<_> = examined
        .list(folder)
        .into_iter()
        .filter(is_of_unit)
        .collect();
    // Debian enables openvpn.service, which starts nothing unless there is a configuration.
    let has_configuration = unit != "openvpn"
        || examined
            .list("etc/openvpn")
            .iter()
            .any(|name| name.ends_with(".conf"));
    if enabled.is_empty() || !has_configuration {
        return Check::ok(&id, format!("no unit of Debian's starts another {unit}"));
    }
    let seen = format!("these units are enabled: {}", enabled.join(", "));
    let advice = match unit {
        "babeld" => "two babelds do not go together: systemctl disable --now babeld",
        _ => "see to it that it uses other ports than listen, or: systemctl disable --now openvpn",
    };
    Check::warning(&id, seen, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, (u32, u32))>) {
        let expected = expected.map(|(version, numbers)| (version.to_owned(), numbers));
        assert_eq!(parse_version(text), expected);
    }

    #[test]
    fn the_first_version_of_a_text_is_found() {
        check(
            "OpenVPN 2.6.14 x86_64-pc-linux-gnu",
            Some(("2.6.14", (2, 6))),
        );
        check("babeld-1.12.1", Some(("1.12.1", (1, 12))));
        check("no version", None);
    }
}
