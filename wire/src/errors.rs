//! How errors are printed, and the one that is no error: a file that is not there.

use std::{error::Error, fmt, io};

/// Prints an error and its sources as `what: why: why`.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Takes "not found" for success: what shall be gone is gone.
///
/// # Errors
/// Any other error.
pub fn ignore_not_found(outcome: io::Result<()>) -> io::Result<()> {
    some_if_found(outcome).map(drop)
}

/// Takes "not found" for `None`.
///
/// # Errors
/// Any other error.
pub fn some_if_found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_not_found_is_no_error() {
        assert_eq!(some_if_found(Ok(7)).unwrap(), Some(7));
        assert!(ignore_not_found(Err(io::ErrorKind::NotFound.into())).is_ok());
        assert!(ignore_not_found(Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }
}
