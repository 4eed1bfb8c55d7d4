//! The committed API document is the one the server serves.

#![cfg(test)]

#[test]
fn the_committed_openapi_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = message_server::web::router::openapi_text();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == made,
        "message-server/openapi.json is not what the handlers say: run UPDATE_OPENAPI=1 cargo test -p message-server --test openapi, \
         look at the difference and commit it"
    );
}
