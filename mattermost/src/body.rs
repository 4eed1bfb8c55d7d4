//! Bodies of requests: one JSON object of texts, and what Go's decoder says of anything else.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longest body: a name and a key, and generously more.
pub const BODY_LEN_MAX: usize = 64 * 1024;

/// A body of another form. What follows on the first value is passed over, and null is as good as nothing.
///
/// # Errors
/// Text for the answer.
pub fn value<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, String> {
    match first(body)? {
        Value::Null => Ok(T::default()),
        object @ Value::Object(_) => serde_json::from_value(object).map_err(|error| format!("invalid JSON: {error}")),
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => Err(unfit(&other, "struct")),
    }
}

fn first(body: &[u8]) -> Result<Value, String> {
    match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        None => Err("EOF".to_owned()),
        Some(Err(error)) if error.is_eof() => Err("unexpected EOF".to_owned()),
        Some(Err(error)) => Err(format!("invalid JSON: {error}")),
        Some(Ok(value)) => Ok(value),
    }
}

/// The texts of a body. What follows on the first value is passed over, and null is as good as nothing, as in Go.
///
/// # Errors
/// Text for the answer.
pub fn texts(body: &[u8]) -> Result<HashMap<String, String>, String> {
    let object = match first(body)? {
        Value::Object(object) => object,
        Value::Null => return Ok(HashMap::new()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => return Err(unfit(&other, "map[string]string")),
    };
    let texts = object.into_iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Null => Ok((key, String::new())),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Err(unfit(&other, "string")),
    });
    texts.collect()
}

fn unfit(value: &Value, wanted: &str) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go value of type {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_go_reads_them() {
        for (body, expected) in [
            ("", "EOF"),
            ("  ", "EOF"),
            (r#"{"clientID":"d""#, "unexpected EOF"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]string"),
            ("7", "json: cannot unmarshal number into Go value of type map[string]string"),
            ("\"x\"", "json: cannot unmarshal string into Go value of type map[string]string"),
            (r#"{"clientID":3}"#, "json: cannot unmarshal number into Go value of type string"),
            (r#"{"a":"b","c":true}"#, "json: cannot unmarshal bool into Go value of type string"),
            (r#"{"a":{}}"#, "json: cannot unmarshal object into Go value of type string"),
        ] {
            assert_eq!(texts(body.as_bytes()), Err(expected.to_owned()), "{body}");
        }
        assert!(texts(b"nope").expect_err("no JSON").starts_with("invalid JSON: "));
        assert_eq!(texts(b"null"), Ok(HashMap::new()));
        let read = texts(br#"{"clientID":"a","authKey":null,"more":"x"} and then"#).expect("an object");
        assert_eq!((read["clientID"].as_str(), read["authKey"].as_str(), read.len()), ("a", "", 3));
    }
}
