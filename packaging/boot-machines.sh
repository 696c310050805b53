# Sourced by packaging/test-boot: boots Debian 12 systems under systemd-nspawn, on one bridge in a network namespace of its
# own.
# shellcheck shell=bash

# The packages of a machine, beside those that are essential.
BASE_PACKAGES=systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,libcap2-bin,passwd

# Prints what this machine lacks to boot others.
missing_for_boot() {
    [ "$(id -u)" -eq 0 ] || echo "root"
    local program
    for program in systemd-nspawn mmdebstrap nsenter ip; do
        command -v "$program" >/dev/null || echo "$program"
    done
    [ -c /dev/net/tun ] || echo "/dev/net/tun"
    grep -qw overlay /proc/filesystems || echo "overlayfs"
}

# Creates the root folder of a fresh Debian 12 in the cache, unless it is there, and prints its path. Packages that warren
# depends on are downloaded, not installed, so that apt works on machines without a network.
base_root() {
    local cache=${WARREN_BOOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/warren-boot} root
    root=$cache/bookworm-1
    mkdir -p "$cache"
    exec 8>"$cache/lock"
    flock 8
    if [ ! -d "$root" ]; then
        rm -rf "$root.new"
        # shellcheck disable=SC2016 # mmdebstrap itself sets $1 to the root.
        mmdebstrap --quiet --variant=minbase --include="$BASE_PACKAGES" \
            --aptopt='APT::Install-Recommends "false"' --skip=cleanup/apt \
            --customize-hook='chroot "$1" apt-get install -y -q --download-only openvpn babeld' \
            bookworm "$root.new" >&2
        mv "$root.new" "$root"
    fi
    exec 8>&-
    echo "$root"
}

# Creates the namespace with the bridge; the names of its files begin with $work.
start_bridge() {
    namespace=warren-boot-$$
    ip netns add "$namespace"
    ip -n "$namespace" link add br0 type bridge
    ip -n "$namespace" link set br0 up
}

# Prints the folders of a machine's own control group, one for each hierarchy in which systemd keeps its units: groups_of NAME.
# Machines in one group would disturb each other when units of the same name start at the same time.
groups_of() {
    local hierarchy
    for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        [ ! -e "$hierarchy/cgroup.procs" ] || echo "$hierarchy/$namespace-$1"
    done
}

# Boots a machine: boot NAME ADDRESS. Its folder is $work/NAME, its root $work/NAME/root.
boot() {
    local name=$1 address=$2 folder=$work/$1 root=$work/$1/root group
    mkdir -p "$folder/upper" "$folder/work" "$root"
    mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$root"
    echo "$name" >"$root/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 %s\n%s registry.example\n' "$name" "$REGISTRY_ADDRESS" >"$root/etc/hosts"
    # An empty file: systemd creates an id of its own.
    : >"$root/etc/machine-id"
    mkdir -p "$root/etc/systemd/network" "$root/etc/systemd/system/multi-user.target.wants"
    printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\n' "$address" >"$root/etc/systemd/network/10-host0.network"
    ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
    # bpf is what an ordinary machine allows root, and nspawn does not.
    (
        for group in $(groups_of "$name"); do
            if mkdir "$group" 2>/dev/null; then echo "$BASHPID" >"$group/cgroup.procs"; fi
        done
        exec nsenter --net="/run/netns/$namespace" systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$root" \
            --machine="$name" --network-bridge=br0 --capability=all --system-call-filter=bpf --bind=/dev/net/tun \
            --console=pipe
    ) </dev/null >"$folder/console" 2>&1 &
    echo $! >"$folder/nspawn"
}

# Waits until a machine has booted, and records the pid of its first process.
wait_for_boot() {
    local name=$1 folder=$work/$1 leader state _
    for _ in $(seq 300); do
        leader=$(pgrep -P "$(cat "$folder/nspawn")" || true)
        if [ -n "$leader" ]; then
            echo "$leader" >"$folder/leader"
            state=$(on "$name" systemctl is-system-running 2>/dev/null || true)
            case $state in running | degraded) return ;; esac
        fi
        sleep 0.1
    done
    echo "machine $name has not booted within 30 s; its console:" >&2
    tail -n 20 "$folder/console" >&2
    return 1
}

# Runs a command on a machine: on NAME COMMAND…
on() {
    local name=$1
    shift
    nsenter --target "$(cat "$work/$name/leader")" --all -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        DEBIAN_FRONTEND=noninteractive "$@"
}

# Powers all machines off, and removes everything.
stop_machines() {
    local folder pid group
    for folder in "$work"/*/; do
        [ -e "$folder/nspawn" ] || continue
        pid=$(cat "$folder/nspawn")
        # systemd-nspawn passes SIGTERM on as an orderly shutdown; a second one kills the machine.
        kill "$pid" 2>/dev/null || true
    done
    for folder in "$work"/*/; do
        [ -e "$folder/nspawn" ] || continue
        pid=$(cat "$folder/nspawn")
        timeout 15 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
        umount -l "$folder/root" 2>/dev/null || true
        for group in $(groups_of "$(basename "$folder")"); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
        done
    done
    ip netns del "$namespace" 2>/dev/null || true
    rm -rf "$work"
}
