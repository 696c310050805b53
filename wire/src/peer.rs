//! Documents of the peer API.
