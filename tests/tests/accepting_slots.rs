//! Tunnels are accepted on VLAN links if the kernel has 8021q, and otherwise on macvlans under two BPF programs. Each
//! kind is tested with three nodes: here, and in a User Mode Linux whose kernel has 8021q.

use anyhow::{Context, Result, ensure};
use lab::{
    Lab, Options, ip, is_skipped_without_root,
    measure::accepting_slots::{self, AcceptingSlots},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// User Mode Linux, from Debian's package user-mode-linux.
const KERNEL: &str = "/usr/bin/linux.uml";
/// Longest time that three nodes may take on one slow processor, in seconds.
const GUEST_TIMEOUT_SECONDS: &str = "420";
/// Lines of the guest's console that an error quotes.
const QUOTED_CONSOLE_LINES: usize = 40;
/// Each test builds three nodes, the second on one emulated processor, so that they run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn this_machine_accepts_tunnels_on_the_kind_of_link_that_its_kernel_has() -> Result<()> {
    if is_skipped_without_root("accepting_slots") {
        return Ok(());
    }
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = if has_8021q()? { "vlan" } else { "macvlan" };
    assert_eq!(accepting_slots::measure()?.link_kind, expected);
    Ok(())
}

/// Whether the kernel can create VLAN links; tried in a namespace of our own.
fn has_8021q() -> Result<bool> {
    let lab = Lab::build(Options {
        nodes: 1,
        ..Options::default()
    })?;
    let line = "link add link eth0 name try.2 type vlan id 2\n";
    Ok(ip::batch(Some(lab.node(0)?.namespace()), line).is_ok())
}

#[test]
fn a_kernel_with_8021q_accepts_tunnels_on_vlan_links() -> Result<()> {
    if is_skipped_without_root("accepting_slots: User Mode Linux") {
        return Ok(());
    }
    let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(
        Path::new(KERNEL).exists(),
        "{KERNEL} is missing: install user-mode-linux"
    );
    let test_program = std::env::current_exe()?;
    let programs = test_program
        .ancestors()
        .nth(2)
        .context("cannot find the folder of the programs")?;
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("uml-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let output = measure_in_guest(&folder, programs);
    let console = fs::read_to_string(folder.join("console")).unwrap_or_default();
    fs::remove_dir_all(&folder)?;
    let slots = output
        .and_then(|output| parse_result(&output))
        .with_context(|| format!("the guest's console ends with:\n{}", last_lines(&console)))?;
    assert_eq!(slots.link_kind, "vlan");
    Ok(())
}

fn parse_result(output: &str) -> Result<AcceptingSlots> {
    let json = output
        .lines()
        .last()
        .context("the guest's result is empty")?;
    serde_json::from_str(json).context("the guest's result is not JSON")
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let first = lines.len().saturating_sub(QUOTED_CONSOLE_LINES);
    lines.get(first..).unwrap_or_default().join("\n")
}

/// Boots a guest on this machine's files. Its first process measures, writes `folder/result`, and powers the guest off.
fn measure_in_guest(folder: &Path, programs: &Path) -> Result<String> {
    let init = folder.join("init");
    let result = folder.join("result");
    fs::write(&init, init_script(programs, &result))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let console = fs::File::create(folder.join("console"))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.args(["timeout", "-k", "5", GUEST_TIMEOUT_SECONDS]);
    command.args([KERNEL, "mem=1200M", "rootfstype=hostfs", "rw"]);
    command.args(["root=/dev/root", "con=null", "con0=fd:0,fd:1"]);
    command.arg(format!("init={}", init.display()));
    command
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    command.status().context("cannot boot User Mode Linux")?;
    fs::read_to_string(&result).context("the guest wrote no result")
}

fn init_script(programs: &Path, result: &Path) -> String {
    let (programs, result) = (programs.display(), result.display());
    format!(
        "#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
for d in /run /tmp; do mount -t tmpfs tmpfs $d; done
mount -t tmpfs tmpfs /dev
mkdir /dev/net /dev/pts
mknod /dev/null c 1 3; mknod /dev/zero c 1 5; mknod /dev/random c 1 8; mknod /dev/urandom c 1 9
mknod /dev/net/tun c 10 200
chmod 666 /dev/null /dev/zero /dev/random /dev/urandom
chmod 1777 /tmp
mkdir -p /tmp/root/lib/modules
ln -s /usr/lib/uml/modules/$(uname -r) /tmp/root/lib/modules/
for m in tun 8021q veth bridge ipv6; do modprobe -d /tmp/root $m; done
ip link set lo up
{programs}/warren-lab measure accepting-slots --json >{result}
echo \"warren-lab exited with $?\"
echo o >/proc/sysrq-trigger
sleep 5
"
    )
}
