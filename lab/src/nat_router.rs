//! A site behind NAT: a router with nftables masquerading and a real miniupnpd, and a LAN behind it.
//!
//! miniupnpd refuses to map ports where the WAN address is not public, so the lab's internet looks public.

use crate::{ip, process, process::Process};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The router's own address on the LAN.
pub const ROUTER: &str = "192.168.77.1";
/// The node's address on the LAN.
pub const INSIDE: &str = "192.168.77.2";

/// What miniupnpd wants to find; each statement on a line of its own, or nft calls it a syntax error.
const RULES: &str = "
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        type filter hook forward priority 0
        policy drop
        ct state established,related accept
        iifname lan0 accept
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority -100
        policy accept
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100
        policy accept
        jump postrouting_miniupnpd
        oifname eth0 masquerade
    }
}
";

const CONFIG: &str = "
ext_ifname=eth0
listening_ip=lan0
enable_upnp=yes
enable_natpmp=yes
secure_mode=yes
system_uptime=yes
uuid=5b3cbb4e-6b2c-4f0f-9a6d-2b9e6a1d0197
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
";

/// The router of one site, with a LAN of one node.
#[derive(Debug)]
pub struct Router {
    namespace: String,
    folder: PathBuf,
    upnp: Mutex<Option<Process>>,
}

impl Router {
    /// Makes the LAN between `namespace`, which has its uplink already, and `inside`, and starts miniupnpd.
    pub(crate) fn new(namespace: String, inside: &str, folder: PathBuf) -> Result<Self> {
        let lan = format!(
            "link add lan0 type veth peer name eth0 netns {inside}\naddr add {ROUTER}/24 dev lan0\nlink set lan0 up\n"
        );
        ip::batch(Some(&namespace), &lan)?;
        let host = format!(
            "link set lo up\naddr add {INSIDE}/24 dev eth0\nlink set eth0 up\nroute add default via {ROUTER}\n"
        );
        ip::batch(Some(inside), &host)?;
        crate::network::underlay::allow_pings(inside)?;
        ip::inside(&namespace, || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")
                .context("cannot make the router forward")
        })?;
        load_rules(&namespace, RULES)?;
        let router = Self {
            namespace,
            folder,
            upnp: Mutex::default(),
        };
        router.start_upnp()?;
        Ok(router)
    }

    /// The router's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Starts miniupnpd, without any mapping.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_upnp(&self) -> Result<()> {
        let config = self.folder.join("miniupnpd.conf");
        fs::write(&config, CONFIG).with_context(|| format!("cannot write {}", config.display()))?;
        let pid_file = self.folder.join("miniupnpd.pid");
        let arguments = [
            "-d".as_ref(),
            "-f".as_ref(),
            config.as_os_str(),
            "-P".as_ref(),
            pid_file.as_os_str(),
        ];
        let log = self.folder.join("miniupnpd.log");
        let process = Process::start(&self.namespace, Path::new("miniupnpd"), arguments, &log)?;
        *self.upnp.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        Ok(())
    }

    /// The port mappings that stand now, one line of nft each.
    ///
    /// # Errors
    /// Where nft cannot be asked.
    pub fn mappings(&self) -> Result<Vec<String>> {
        let arguments = ["list", "chain", "inet", "filter", "prerouting_miniupnpd"];
        let told = process::run(
            &self.namespace,
            Path::new("nft"),
            arguments,
            Duration::from_secs(10),
        )?;
        Ok(told
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("dnat"))
            .map(ToOwned::to_owned)
            .collect())
    }
}

pub(crate) fn load_rules(namespace: &str, rules: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "nft", "-f", "-"]);
    let mut nft = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start nft")?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin
            .write_all(rules.as_bytes())
            .context("cannot write to nft")?;
    }
    let output = nft.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!(
            "nft refused: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
