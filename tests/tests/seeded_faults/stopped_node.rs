//! Faults of the files and of the host of a node that is stopped.

use crate::shown::{Table, doctor, examined, split_code, warren};
use anyhow::{Context, Result, ensure};
use lab::{Node, netns, process::warren_program};
use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

/// The setting that disables IPv6.
const DISABLE_IPV6: &str = "net.ipv6.conf.all.disable_ipv6";

fn set_mode(file: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
}

/// Seeds each fault, examines the node, and undoes the fault.
pub fn check(node: &Node, table: &mut Table) -> Result<()> {
    let status = warren(node, "status")?;
    ensure!(
        status.code == 3,
        "status of a stopped node: {}",
        status.code
    );
    table.check_doctor("the daemon is stopped", &doctor(node)?, "daemon", "warning")?;
    rights(node, table)?;
    contents(node, table)?;
    let namespace = node.namespace();
    let socket = netns::run_inside(namespace, || Ok(UdpSocket::bind("0.0.0.0:1194")?))?;
    table.check_doctor(
        "another program has UDP 1194",
        &doctor(node)?,
        "ports",
        "failed",
    )?;
    drop(socket);
    let set = |value| node.command("sysctl", &["-w", &format!("{DISABLE_IPV6}={value}")]);
    set(1)?;
    let seen = doctor(node)?;
    set(0)?;
    table.check_doctor("IPv6 is disabled", &seen, "ipv6", "warning")?;
    disk_full(node, table)
}

fn rights(node: &Node, table: &mut Table) -> Result<()> {
    let state = node.root().join("var/lib/warren");
    let key = state.join("node.key");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&key)?);
    set_mode(&key, 0o644)?;
    table.check_doctor(
        "all may read the private key",
        &doctor(node)?,
        "key_file",
        "failed",
    )?;
    set_mode(&key, 0o600)?;
    chown(&key, Some(4_242), None)?;
    table.check_doctor(
        "OpenVPN may not read the key",
        &doctor(node)?,
        "key_file",
        "failed",
    )?;
    chown(&key, Some(owner), None)?;
    for (fault, mode) in [
        ("all may change the state folder", 0o777),
        ("OpenVPN may not enter the state folder", 0o700),
    ] {
        set_mode(&state, mode)?;
        table.check_doctor(fault, &doctor(node)?, "state_folder", "failed")?;
    }
    set_mode(&state, 0o711)
}

fn contents(node: &Node, table: &mut Table) -> Result<()> {
    let certificate = node.root().join("var/lib/warren/node.crt");
    let good = fs::read(&certificate)?;
    fs::write(&certificate, "no certificate")?;
    table.check_doctor(
        "damaged certificate",
        &doctor(node)?,
        "certificate",
        "failed",
    )?;
    fs::write(&certificate, good)?;
    let file = node.root().join("etc/warren/warren.yaml");
    let good = fs::read_to_string(&file)?;
    fs::write(&file, format!("{good}more: 1\n"))?;
    table.check_doctor("unknown key", &doctor(node)?, "configuration", "failed")?;
    let complaint = warren(node, "check-config 2>&1")?;
    ensure!(
        complaint.code == 78 && complaint.text.contains("more: unknown key"),
        "{}",
        complaint.text
    );
    fs::write(&file, &good)?;
    let valid = warren(node, "check-config")?;
    ensure!(
        valid.code == 0 && valid.text.ends_with(": valid"),
        "{}",
        valid.text
    );
    node.configure("child-users", "{ openvpn: nobody-here, babeld: 64002 }")?;
    table.check_doctor("a user does not exist", &doctor(node)?, "users", "failed")?;
    node.configure("registry", "https://127.0.0.1:1")?;
    table.check_doctor(
        "wrong address of the registry",
        &doctor(node)?,
        "registry",
        "failed",
    )?;
    Ok(fs::write(&file, good)?)
}

/// Examines a root on a file system with no space, which exists for the command only.
fn disk_full(node: &Node, table: &mut Table) -> Result<()> {
    let program = warren_program();
    let script = format!(
        "mount -t tmpfs -o size=64k none /mnt && {} doctor --json --root /mnt; echo $?",
        program.to_str().context("the program's path is no text")?
    );
    let printed = node.command("unshare", &["--mount", "sh", "-c", &script])?;
    let seen = examined(&split_code(&printed)?)?;
    table.check_doctor("no space on the disk", &seen, "disk_space", "failed")
}
