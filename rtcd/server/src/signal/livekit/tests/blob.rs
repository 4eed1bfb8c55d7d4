//! Data blobs, stored and fetched.

use lk::data_blob_key::Key;
use lk::data_track_schema_encoding::Value as Encoding;
use lk::request_response::Reason;

use super::*;
use crate::limits;

fn generic(name: &str) -> lk::DataBlobKey {
    lk::DataBlobKey { key: Some(Key::Generic(name.to_owned())) }
}

fn schema(name: &str, encoding: Encoding) -> lk::DataBlobKey {
    let encoding = Some(lk::DataTrackSchemaEncoding { value: Some(encoding) });
    lk::DataBlobKey { key: Some(Key::SchemaId(lk::DataTrackSchemaId { name: name.to_owned(), encoding })) }
}

/// Stores, and gives the only answer.
fn store(world: &mut World, session: &str, key: Option<lk::DataBlobKey>, contents: Vec<u8>) -> Message {
    let blob = Some(lk::DataBlob { key, contents });
    world.ask(session, Asked::StoreDataBlobRequest(lk::StoreDataBlobRequest { request_id: 7, blob }));
    only(world, session)
}

fn fetch(world: &mut World, session: &str, of: &str, key: Option<lk::DataBlobKey>) -> Message {
    let request = lk::GetDataBlobRequest { request_id: 8, participant_identity: of.to_owned(), key };
    world.ask(session, Asked::GetDataBlobRequest(request));
    only(world, session)
}

fn only(world: &mut World, session: &str) -> Message {
    let mut seen = world.seen(session);
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

#[track_caller]
fn refused(answer: &Message, wanted: Reason, words: &str) {
    let Message::RequestResponse(response) = answer else { panic!("{answer:?}") };
    assert!(response.reason() == wanted && response.message.contains(words), "{response:?}");
}

#[track_caller]
fn stored(answer: &Message, key: &lk::DataBlobKey) {
    let Message::StoreDataBlobResponse(response) = answer else { panic!("{answer:?}") };
    assert_eq!((response.request_id, response.key.as_ref()), (7, Some(key)));
}

#[track_caller]
fn contents(answer: Message) -> Vec<u8> {
    let Message::GetDataBlobResponse(response) = answer else { panic!("{answer:?}") };
    assert_eq!(response.request_id, 8);
    response.blob.expect("a blob").contents
}

#[test]
fn what_somebody_stores_others_fetch_until_it_leaves() {
    let mut world = World::new();
    world.join("s1", "alice");
    // Neither rights to publish nor to send data are asked for, as with LiveKit's server.
    world.join_with("s2", "bob", |join| join.grants = Some(v1::Grants { can_subscribe: true, ..v1::Grants::default() }));
    world.forget();
    let (name, id) = (generic("map"), schema("map", Encoding::WellKnown(1)));
    stored(&store(&mut world, "s1", Some(name.clone()), vec![1; 50_000]), &name);
    stored(&store(&mut world, "s1", Some(id.clone()), b"message Map".to_vec()), &id);
    assert_eq!(contents(fetch(&mut world, "s2", "alice", Some(name.clone()))), vec![1; 50_000]);
    assert_eq!(contents(fetch(&mut world, "s2", "alice", Some(id))), b"message Map");
    // A name is one thing as text and another as a schema, and another again in another encoding.
    refused(&fetch(&mut world, "s2", "alice", Some(schema("map", Encoding::WellKnown(2)))), Reason::NotFound, "blob not found");
    refused(&fetch(&mut world, "s2", "carol", Some(name.clone())), Reason::NotFound, "participant not found");
    refused(&fetch(&mut world, "s2", "alice", None), Reason::InvalidRequest, "key is required");
    stored(&store(&mut world, "s1", Some(name.clone()), b"newer".to_vec()), &name);
    assert_eq!(contents(fetch(&mut world, "s1", "alice", Some(name.clone()))), b"newer", "one's own too");
    stored(&store(&mut world, "s2", Some(name.clone()), b"bob's".to_vec()), &name);
    assert_eq!(contents(fetch(&mut world, "s2", "alice", Some(name.clone()))), b"newer", "each has its own");

    world.tell(AdapterInput::Leave { session: key("s1"), connection_lost: false });
    world.forget();
    refused(&fetch(&mut world, "s2", "alice", Some(name.clone())), Reason::NotFound, "participant not found");
    world.join("s3", "alice");
    world.forget();
    refused(&fetch(&mut world, "s2", "alice", Some(name)), Reason::NotFound, "blob not found");
}

#[test]
fn blobs_without_a_key_or_contents_or_over_a_bound_are_refused() {
    let mut world = World::new();
    world.join("s1", "alice");
    world.forget();
    let long = |len: usize| "k".repeat(len);
    world.ask("s1", Asked::StoreDataBlobRequest(lk::StoreDataBlobRequest { request_id: 7, blob: None }));
    refused(&only(&mut world, "s1"), Reason::InvalidRequest, "is invalid");
    for key in [None, Some(lk::DataBlobKey { key: None }), Some(generic(&long(257))), Some(schema(&long(257), Encoding::WellKnown(1)))] {
        refused(&store(&mut world, "s1", key, vec![1]), Reason::InvalidRequest, "data blob is invalid");
    }
    for own in [String::new(), long(33)] {
        let key = schema("s", Encoding::Custom(own));
        refused(&store(&mut world, "s1", Some(key), vec![1]), Reason::InvalidRequest, "encoding identifier");
    }
    stored(&store(&mut world, "s1", Some(schema("s", Encoding::Custom(long(32)))), vec![1]), &schema("s", Encoding::Custom(long(32))));
    refused(&store(&mut world, "s1", Some(generic("a")), Vec::new()), Reason::InvalidRequest, "is empty");

    // With the 34 bytes stored above; what is replaced does not count.
    let rest = limits::DATA_BLOBS_LEN_MAX - 34;
    refused(&store(&mut world, "s1", Some(generic("a")), vec![1; rest]), Reason::LimitExceeded, "64000 bytes");
    stored(&store(&mut world, "s1", Some(generic("a")), vec![1; rest - 1]), &generic("a"));
    stored(&store(&mut world, "s1", Some(generic("a")), vec![2; rest - 1]), &generic("a"));
    refused(&store(&mut world, "s1", Some(generic("b")), vec![1]), Reason::LimitExceeded, "64000 bytes");
    stored(&store(&mut world, "s1", Some(generic("a")), vec![3]), &generic("a"));
    for n in 2..limits::DATA_BLOBS_MAX {
        stored(&store(&mut world, "s1", Some(generic(&n.to_string())), vec![1]), &generic(&n.to_string()));
    }
    refused(&store(&mut world, "s1", Some(generic("one more")), vec![1]), Reason::LimitExceeded, "fewer keys");
    assert!(world.ended.is_empty() && world.commands.is_empty());
}

#[test]
fn a_calls_blobs_are_bounded_together() {
    let mut world = World::new();
    let whole = limits::DATA_BLOBS_LEN_MAX - 1;
    let fit = limits::DATA_BLOBS_OF_CALL_LEN_MAX / limits::DATA_BLOBS_LEN_MAX;
    for n in 0..=fit {
        let session = format!("s{n}");
        world.join(&session, &session);
        world.seen(&session);
        let answer = store(&mut world, &session, Some(generic("k")), vec![1; whole]);
        match n < fit {
            true => stored(&answer, &generic("k")),
            false => refused(&answer, Reason::LimitExceeded, "room's data blobs"),
        }
    }
}
