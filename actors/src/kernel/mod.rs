//! Kernel links, addresses and routes, by netlink.
