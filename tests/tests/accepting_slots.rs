//! Tunnels are accepted on VLAN links where the kernel has 8021q, and elsewhere on macvlans under two BPF
//! programs: three nodes each, here and in a User Mode Linux whose kernel has 8021q.

use anyhow::{Context, Result};
use lab::{is_left_out, measure::accepting_slots::Slots};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// User Mode Linux, of Debian's package user-mode-linux.
const KERNEL: &str = "/usr/bin/linux.uml";
/// How long three nodes may take on one slow CPU, in seconds.
const PATIENCE: &str = "420";

#[test]
fn this_machine_accepts_tunnels_by_what_its_kernel_has() -> Result<()> {
    if is_left_out("accepting_slots") {
        return Ok(());
    }
    let slots = lab::measure::accepting_slots::measure()?;
    assert_eq!(slots.kind, if has_8021q()? { "vlan" } else { "macvlan" });
    Ok(())
}

/// Whether the kernel makes VLAN links, tried in a namespace of our own.
fn has_8021q() -> Result<bool> {
    let lab = lab::Lab::new(lab::Options {
        nodes: 1,
        ..lab::Options::default()
    })?;
    let namespace = lab.node(0)?.namespace();
    Ok(lab::ip::batch(
        Some(namespace),
        "link add link eth0 name try.2 type vlan id 2\n",
    )
    .is_ok())
}

#[test]
fn a_kernel_with_8021q_accepts_tunnels_by_vlan() -> Result<()> {
    if is_left_out("accepting_slots: User Mode Linux") {
        return Ok(());
    }
    anyhow::ensure!(
        Path::new(KERNEL).exists(),
        "{KERNEL} is missing: install user-mode-linux"
    );
    let own = std::env::current_exe()?;
    let programs = own.ancestors().nth(2).context("no folder of programs")?;
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("uml-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = boot(&folder, programs);
    let console = fs::read_to_string(folder.join("console")).unwrap_or_default();
    fs::remove_dir_all(&folder)?;
    let told =
        result.with_context(|| format!("the guest's console ends with:\n{}", end_of(&console)))?;
    let last = told
        .lines()
        .last()
        .with_context(|| format!("no result; console:\n{}", end_of(&console)))?;
    let slots: Slots =
        serde_json::from_str(last).with_context(|| format!("console:\n{}", end_of(&console)))?;
    assert_eq!(slots.kind, "vlan");
    Ok(())
}

fn end_of(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines
        .get(lines.len().saturating_sub(40)..)
        .unwrap_or_default()
        .join("\n")
}

/// Boots the guest on this machine's files; its first process measures, writes to `folder/result`, and halts.
fn boot(folder: &Path, programs: &Path) -> Result<String> {
    let init = folder.join("init");
    let result = folder.join("result");
    fs::write(
        &init,
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
{programs}/warren-lab measure slots --json >{result}
echo \"ended with $?\"
echo o >/proc/sysrq-trigger
sleep 5
",
            programs = programs.display(),
            result = result.display()
        ),
    )?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let console = fs::File::create(folder.join("console"))?;
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "timeout",
        "-k",
        "5",
        PATIENCE,
        KERNEL,
    ]);
    command.args([
        "mem=1200M",
        "rootfstype=hostfs",
        "rw",
        "root=/dev/root",
        "con=null",
        "con0=fd:0,fd:1",
    ]);
    command.arg(format!("init={}", init.display()));
    command
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    command.status().context("cannot boot User Mode Linux")?;
    fs::read_to_string(&result).context("the guest wrote no result")
}
