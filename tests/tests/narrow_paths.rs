//! Packets of all sizes pass tunnels whose path drops large packets and does not report that.

use anyhow::{Result, ensure};
use lab::{
    is_skipped_without_root,
    measure::underlay::{Carrier, Path, measure_path},
};

/// A path with the smallest MTU, whose routers report nothing.
const NARROW: Path = Path {
    mtu: 1280,
    carrier: Carrier::UdpIpv4,
    icmp_passes: false,
    fragments_pass: true,
    narrows_later: false,
};

#[test]
fn pings_of_all_sizes_and_bulk_data_pass_a_narrow_path() -> Result<()> {
    check(NARROW)
}

#[test]
fn pings_of_all_sizes_and_bulk_data_pass_a_path_that_becomes_narrow() -> Result<()> {
    check(Path {
        narrows_later: true,
        ..NARROW
    })
}

#[test]
fn bulk_data_passes_by_tcp_where_packets_of_full_size_pass_and_full_segments_do_not() -> Result<()>
{
    let path = Path {
        mtu: 1492,
        carrier: Carrier::Tcp,
        ..NARROW
    };
    check(path)
}

#[test]
fn tcp_is_used_where_a_path_drops_fragments_too() -> Result<()> {
    check(Path {
        carrier: Carrier::Either,
        fragments_pass: false,
        ..NARROW
    })
}

fn check(path: Path) -> Result<()> {
    if is_skipped_without_root("narrow_paths") {
        return Ok(());
    }
    let cell = measure_path(path)?;
    ensure!(cell.passes_all(), "{cell:?}");
    Ok(())
}
