//! Splits and joins elements of DER (X.690, section 8.1): as much as it takes to replace one field of a certificate.

/// The tag of a sequence.
pub(super) const SEQUENCE: u8 = 0x30;

/// The tag of a bit string.
pub(super) const BIT_STRING: u8 = 0x03;

/// The tag of an octet string.
pub(super) const OCTET_STRING: u8 = 0x04;

/// The tag of the element number 0 that is specific to its context.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// An element, as it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    /// The content, without tag and length.
    pub(super) content: &'a [u8],
    /// Tag, length and content.
    pub(super) encoded: &'a [u8],
}

/// Splits the bytes into elements; `None` if they are not a sequence of elements of DER with short tags.
pub(super) fn elements(mut bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = first_element(bytes)?;
        all.push(element);
        bytes = rest;
    }
    Some(all)
}

/// Returns the elements of a sequence.
pub(super) fn sequence(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    match elements(bytes)?.as_slice() {
        [only] if only.tag == SEQUENCE => elements(only.content),
        _ => None,
    }
}

fn first_element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (tag, after_tag) = bytes.split_first()?;
    let (first, after_first) = after_tag.split_first()?;
    let (length, content) = match *first {
        short @ 0..=0x7f => (usize::from(short), after_first),
        long @ 0x81..=0x84 => {
            let (digits, content) = after_first.split_at_checked(usize::from(long & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |length, digit| length << 8 | usize::from(*digit));
            (length, content)
        }
        _ => return None,
    };
    let (content, rest) = content.split_at_checked(length)?;
    let (encoded, _) = bytes.split_at_checked(bytes.len() - rest.len())?;
    let tag = *tag;
    Some((
        Element {
            tag,
            content,
            encoded,
        },
        rest,
    ))
}

/// Encodes an element whose content consists of these parts.
pub(super) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let digits = length.get(zeros..).unwrap_or_default();
    let mut element = vec![tag];
    match (digits, u8::try_from(digits.len())) {
        ([], _) => element.push(0),
        ([short @ 0..=0x7f], _) => element.push(*short),
        (_, count) => {
            element.push(0x80 | count.unwrap_or(0));
            element.extend(digits);
        }
    }
    element.extend(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_of_any_length_is_split_as_it_was_encoded() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let content = vec![7; length];
            let encoded = encode(SEQUENCE, &[&content]);
            let two = [encoded.as_slice(), &encode(BIT_STRING, &[b"ab", b"c"])].concat();
            let split = elements(&two).unwrap();
            assert_eq!(split.len(), 2);
            assert_eq!((split[0].tag, split[0].content.len()), (SEQUENCE, length));
            assert_eq!(split[0].encoded, encoded);
            assert_eq!(split[1].content, b"abc");
        }
        assert_eq!(
            encode(SEQUENCE, &[&[0; 0x80]]).get(..3),
            Some(&[0x30, 0x81, 0x80][..])
        );
    }

    #[test]
    fn bytes_that_are_no_elements_are_not_split() {
        for bytes in [
            &[0x30][..],
            &[0x30, 1],
            &[0x30, 0x80],
            &[0x30, 0x82, 1],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(elements(bytes), None, "{bytes:?}");
        }
    }
}
