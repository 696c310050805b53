//! Converts names to and from their canonical text for serde; lists are bounded while they are read.

use serde::{
    Deserialize, Deserializer, Serializer,
    de::{self, SeqAccess, Visitor},
};
use std::{fmt, marker::PhantomData, str::FromStr};

/// For `#[serde(with = "text::one")]`: a value that is printed and parsed as text.
pub mod one {
    use super::{Deserialize, Deserializer, FromStr, Serializer, de, fmt};

    /// Writes the text.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<T: fmt::Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Reads the text.
    ///
    /// # Errors
    /// The text cannot be parsed as such a name.
    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse()
            .map_err(|error| de::Error::custom(format_args!("{error}")))
    }
}

/// For `#[serde(with = "text::few")]`: at most [`FEW`] names in a list.
pub mod few {
    use super::{Deserializer, FEW, FromStr, Names, PhantomData, Serializer, fmt};

    /// Writes the list.
    ///
    /// # Errors
    /// The errors of the serializer.
    pub fn serialize<T: fmt::Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(T::to_string))
    }

    /// Reads the list, and stops at the first name beyond the limit.
    ///
    /// # Errors
    /// Too many names, or a text that is no such name.
    pub fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        from.deserialize_seq(Names {
            max: FEW,
            kind: PhantomData,
        })
    }
}

/// The maximum number of names in a [`few`] list: no node has more endpoints than this.
pub const FEW: usize = 16;

struct Names<T> {
    max: usize,
    kind: PhantomData<T>,
}

impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Names<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} names", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut names = Vec::new();
        while let Some(text) = items.next_element::<std::borrow::Cow<'de, str>>()? {
            if names.len() >= self.max {
                return Err(de::Error::invalid_length(names.len() + 1, &self));
            }
            names.push(
                text.parse()
                    .map_err(|error| de::Error::custom(format_args!("{error}")))?,
            );
        }
        Ok(names)
    }
}

struct Items<T> {
    max: usize,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} items", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() >= self.max {
                return Err(de::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(item);
        }
        Ok(list)
    }
}

/// Reads a list of at most `MAX` documents, for `#[serde(deserialize_with = …)]`.
///
/// # Errors
/// Too many items, or one that is no such document.
pub fn at_most<'de, const MAX: usize, T, D>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    from.deserialize_seq(Items {
        max: MAX,
        kind: PhantomData,
    })
}
