//! A node as an operator writes it: by its prefix or by its name.

use crate::{names::Prefix, node_name::NodeName};
use std::str::FromStr;

/// A node that is meant by its prefix or by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeReference {
    /// The node with this prefix.
    Prefix(Prefix),
    /// The node that has this name at the moment.
    Name(NodeName),
}

impl FromStr for NodeReference {
    type Err = ();

    /// Reads a prefix such as `7/16`, or a name.
    fn from_str(text: &str) -> Result<Self, ()> {
        let prefix = text.parse().map(Self::Prefix).ok();
        let reference = prefix.or_else(|| text.parse().map(Self::Name).ok());
        reference.ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_a_slash_is_a_prefix_and_a_label_a_name() {
        let read = |text: &str| text.parse::<NodeReference>().ok();
        assert_eq!(
            read("7/16"),
            Some(NodeReference::Prefix("7/16".parse().unwrap()))
        );
        assert_eq!(
            read("printer"),
            Some(NodeReference::Name("printer".parse().unwrap()))
        );
        assert_eq!(read("7/64"), None);
        assert_eq!(read("a.b"), None);
    }
}
