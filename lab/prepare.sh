# Sourced by ./demo, ./test and lab/boards/install: installs missing Debian packages, and finds cargo.
# shellcheck shell=bash

# A file of each Debian package, and the package: what a lab needs, and what the tests need beyond that.
lab_packages=(
    /usr/sbin/openvpn:openvpn
    /usr/sbin/babeld:babeld
    /usr/bin/ip:iproute2
    /usr/bin/ping:iputils-ping
    /usr/sbin/nft:nftables
    /usr/bin/cc:gcc
    /usr/include/stdio.h:libc6-dev
)
test_packages=(
    /usr/sbin/miniupnpd:miniupnpd
    /usr/bin/prometheus:prometheus
    /usr/bin/prometheus-alertmanager:prometheus-alertmanager
    /usr/bin/faketime:faketime
    /usr/bin/openssl:openssl
    /usr/bin/curl:curl
    /usr/bin/faketime:faketime
    /usr/bin/linux.uml:user-mode-linux
    /usr/sbin/modprobe:kmod
    /usr/share/doc/python3-venv:python3-venv
    /usr/bin/systemd-nspawn:systemd-container
    /usr/bin/mmdebstrap:mmdebstrap
    /usr/bin/dpkg-buildpackage:dpkg-dev
    /usr/bin/dh:debhelper
    /usr/bin/fakeroot:fakeroot
    /usr/bin/lintian:lintian
)
# What draws Grafana boards.
board_packages=(
    /usr/bin/node:nodejs
    /usr/bin/npm:npm
    /usr/bin/chromium:chromium
    /usr/bin/pngquant:pngquant
    /usr/bin/tmux:tmux
)

# Packages whose installation starts a daemon. warren does not need these daemons, and Debian's babeld must not run
# beside warren's own.
daemon_packages=(babeld miniupnpd prometheus prometheus-alertmanager openvpn nftables)

missing_packages() {
    local entry
    for entry in "$@"; do
        [ -e "${entry%%:*}" ] || echo "${entry##*:}"
    done
}

# Installs packages without starting their daemons: policy-rc.d forbids it meanwhile, and is restored afterwards.
install_without_starting() {
    local policy=/usr/sbin/policy-rc.d saved='' failed=0 package
    if [ -e "$policy" ]; then
        saved=$(mktemp)
        cp -p "$policy" "$saved"
    fi
    restore_policy() {
        if [ -n "$saved" ]; then cp -p "$saved" "$policy" && rm -f "$saved"; else rm -f "$policy"; fi
    }
    trap restore_policy EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends "$@"; } >&2 || failed=1
    restore_policy
    trap - EXIT INT TERM
    for package in "$@"; do
        # The daemons shall not start at the next boot either.
        case " ${daemon_packages[*]} " in *" $package "*) update-rc.d "$package" disable >/dev/null 2>&1 || true ;; esac
    done
    return "$failed"
}

# Installs those of the packages that are missing: install_missing_packages FILE:PACKAGE…
install_missing_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing Debian packages (run as root to have them installed): ${missing[*]}" >&2
        return
    fi
    echo "installing: ${missing[*]}" >&2
    install_without_starting "${missing[@]}" || echo "apt could not install all of: ${missing[*]}" >&2
}

find_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust 1.95 or newer with rustup (https://rustup.rs)" >&2
        exit 1
    fi
}
