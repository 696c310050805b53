//! Documents of the registry API.
