//! The suspicion datagram: a node says that it suspects a peer to be dead.
