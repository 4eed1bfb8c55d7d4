//! A TOML file as dotted keys and texts, in the form that the environment would have them.

/// Puts every value of a table into `into`.
pub(super) fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, inner) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, inner, into);
            }
        }
        toml::Value::String(text) => into.push((prefix.to_owned(), text.clone())),
        toml::Value::Array(items) if prefix.eq_ignore_ascii_case("rtc.ice_servers") => into.push((prefix.to_owned(), ice_servers(items))),
        toml::Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            into.push((prefix.to_owned(), parts.join(",")));
        }
        other @ (toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_)) => {
            into.push((prefix.to_owned(), other.to_string()));
        }
    }
}

/// As JSON. A URL by itself is an entry of its own in a file, while the URLs of a list in the environment are one entry together.
fn ice_servers(items: &[toml::Value]) -> String {
    let entries = items.iter().map(|item| match item {
        toml::Value::String(url) => serde_json::json!({ "urls": [url] }),
        toml::Value::Table(table) => {
            // Keys without regard to case, as everywhere.
            let entries = table.iter().map(|(key, value)| (key.to_lowercase(), serde_json::to_value(value).unwrap_or_default()));
            serde_json::Value::Object(entries.collect())
        }
        other @ (toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)) => serde_json::Value::String(other.to_string()),
    });
    serde_json::Value::Array(entries.collect()).to_string()
}
