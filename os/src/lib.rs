//! A node's interface to the operating system: kernel links, addresses and routes, child processes, raw
//! sockets, and the clock.
//!
//! This crate knows no actor and nothing of what the node decides. Only this crate spawns processes and reads the
//! time; `clippy.toml` forbids both elsewhere.
//!
//! | to … | start at |
//! | --- | --- |
//! | create slots, set them up or down, install addresses and routes | [`kernel::Kernel`] |
//! | start OpenVPN or babeld, and receive its output | [`process::Child`], [`process::Supervised`] |
//! | send an echo request through one link | [`echo_socket`] |
//! | find which node a packet with a small hop limit reaches | [`hop_echo`] |
//! | send a Babel packet in addition to babeld's | [`babel_socket`] |
//! | notice that a neighbour asks babeld for a fresh sequence number | [`babel_listener`] |
//! | send and receive multicasts on one link | [`link_socket`] |
//! | make the kernel send smaller packets to one destination | [`path_mtu`] |
//! | send and receive datagrams at the port of a server that runs | [`server_port`] |
//! | find whether the host has a route to an address | [`route_check`] |
//! | find whether another program shares a UDP port | [`udp_ports`] |
//! | read what processes use, and how many packets their sockets dropped | [`process_usage`], [`socket_drops`] |
//! | read the time | [`clock::Clock`] |
//! | draw a random number | [`randomness::Randomness`] |
//! | return freed memory to the kernel | [`memory`] |

pub mod babel_listener;
pub mod babel_socket;
pub mod clock;
pub mod echo_socket;
pub mod hop_echo;
pub mod kernel;
pub mod link_socket;
pub mod memory;
pub mod path_mtu;
pub mod process;
pub mod process_usage;
pub mod randomness;
pub mod route_check;
pub mod server_drops;
pub mod server_port;
pub mod socket_drops;
pub mod udp_ports;
