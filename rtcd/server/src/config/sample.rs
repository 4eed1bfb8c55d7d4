//! The sample file, made from the settings table.

use std::fmt::Write as _;

use super::FIELDS;

/// A TOML file with every setting, its meaning, its default and its environment variable.
#[must_use]
pub fn sample_toml() -> String {
    let mut text = String::from(
        "# Settings of rtcd. Generated from rtcd/server/src/config/mod.rs; every value can also be given by the\n\
         # environment variable named with it, which wins over this file. Uncomment (`#: `) what differs.\n",
    );
    let mut section = "";
    for field in FIELDS {
        let (head, key) = field.key.split_once('.').unwrap_or(("", field.key));
        if head != section {
            let _ = write!(text, "\n[{head}]\n");
            section = head;
        }
        for line in field.doc {
            let _ = writeln!(text, "#{line}");
        }
        let _ = writeln!(text, "# Environment: {}", field.env);
        let plain = field.default.parse::<u64>().is_ok() || field.default == "true" || field.default == "false";
        let value = if plain { field.default.to_owned() } else { format!("{:?}", field.default) };
        let _ = writeln!(text, "#: {key} = {value}");
    }
    text
}
