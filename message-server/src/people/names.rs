//! Names from outside, made safe to show and to log.

use crate::{
    error::{ApiError, ApiResult},
    limits,
};

/// A name that people see: trimmed, one line, bounded, nothing invisible.
pub fn display_name(text: &str, what: &str) -> ApiResult<String> {
    let name = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if name.is_empty() {
        return Err(ApiError::bad_request(format!("{what} is empty. Type a name.")));
    }
    if name.chars().count() > limits::NAME_CHARS {
        return Err(ApiError::bad_request(format!("{what} is too long. Use at most {} characters.", limits::NAME_CHARS)));
    }
    // Direction overrides and other controls let one name look like another.
    if name
        .chars()
        .any(|c| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
    {
        return Err(ApiError::bad_request(format!("{what} contains invisible characters. Type it by hand.")));
    }
    Ok(name)
}

/// A sign-in name: lower case letters, digits, dot, dash, underscore.
pub fn username(text: &str) -> ApiResult<String> {
    let name = text.trim().to_ascii_lowercase();
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | '@');
    if !(2..=64).contains(&name.len()) || !name.chars().all(fine) {
        return Err(ApiError::bad_request("A user name has 2 to 64 letters, digits, dots, dashes, underscores or @. Choose another one."));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_bounded_and_visible() {
        assert_eq!(display_name("  Ada \n Lovelace ", "name").unwrap(), "Ada Lovelace");
        for bad in ["", " \t", "evil\u{202e}name", &"x".repeat(81), "nul\0"] {
            assert!(display_name(bad, "name").is_err(), "{bad:?}");
        }
        assert_eq!(username(" Ada.L ").unwrap(), "ada.l");
        for bad in ["", "a", "a b", "ädä", &"x".repeat(65)] {
            assert!(username(bad).is_err(), "{bad:?}");
        }
    }
}
