//! Data blobs: things that participants leave for others to fetch, such as the schema of a data track. Kept as long as who stored them is here.

use livekit_protocol as lk;
use lk::data_blob_key::Key;
use lk::data_track_schema_encoding::Value as Encoding;
use lk::request_response::Reason;
use lk::signal_response::Message;
use rtcd_core::ids::PeerId;

use super::call::Call;
use super::request::refuse;
use super::turn::Turn;
use crate::limits;
use crate::signal::seam::SessionKey;

/// What one participant has stored.
#[derive(Debug, Default)]
pub(super) struct Blobs(Vec<lk::DataBlob>);

impl Blobs {
    fn find(&self, key: &lk::DataBlobKey) -> Option<&lk::DataBlob> {
        self.0.iter().find(|blob| blob.key.as_ref() == Some(key))
    }

    /// Bytes of keys and contents.
    fn len(&self) -> usize {
        self.0.iter().map(len).sum()
    }

    /// The same key again replaces what was there.
    fn store(&mut self, blob: lk::DataBlob) {
        self.0.retain(|stored| stored.key != blob.key);
        self.0.push(blob);
    }
}

fn len(blob: &lk::DataBlob) -> usize {
    let key = match blob.key.as_ref().and_then(|key| key.key.as_ref()) {
        Some(Key::Generic(key)) => key.len(),
        Some(Key::SchemaId(schema)) => schema.name.len() + custom(schema).map_or(0, str::len),
        None => 0,
    };
    key + blob.contents.len()
}

fn custom(schema: &lk::DataTrackSchemaId) -> Option<&str> {
    match schema.encoding.as_ref()?.value.as_ref()? {
        Encoding::Custom(name) => Some(name),
        Encoding::WellKnown(_) => None,
    }
}

/// Is this an encoding's name of an application's own? `None`: it has none.
pub(super) fn is_custom_name(name: Option<&str>) -> bool {
    name.is_none_or(|name| (1..=limits::DATA_ENCODING_LEN_MAX).contains(&name.len()))
}

/// May this name a schema? LiveKit's server has no bound for the name; the protocol says 256.
pub(super) fn is_schema(schema: Option<&lk::DataTrackSchemaId>) -> bool {
    schema.is_none_or(|schema| schema.name.len() <= limits::DATA_NAME_LEN_MAX && is_custom_name(custom(schema)))
}

fn is_key(key: &lk::DataBlobKey) -> bool {
    match &key.key {
        Some(Key::Generic(name)) => name.len() <= limits::DATA_NAME_LEN_MAX,
        Some(Key::SchemaId(schema)) => schema.name.len() <= limits::DATA_NAME_LEN_MAX,
        None => false,
    }
}

impl Call {
    pub(super) fn handle_store_blob(
        &mut self,
        turn: &mut Turn<'_>,
        session: &SessionKey,
        peer: &PeerId,
        request: lk::StoreDataBlobRequest,
    ) {
        let id = request.request_id;
        let Some(blob) = request.blob.filter(|blob| blob.key.as_ref().is_some_and(is_key)) else {
            return refuse(turn, session, id, Reason::InvalidRequest, "data blob is invalid", None);
        };
        let Some(key) = blob.key.clone() else { return };
        if let Some(Key::SchemaId(schema)) = &key.key
            && !is_schema(Some(schema))
        {
            let message = "encoding identifier is empty or exceeds the maximum length";
            return refuse(turn, session, id, Reason::InvalidRequest, message, None);
        }
        if blob.contents.is_empty() {
            return refuse(turn, session, id, Reason::InvalidRequest, "data blob is empty", None);
        }
        let of_all: usize = self.participants.iter().map(|participant| participant.blobs.len()).sum();
        let Some(participant) = self.participant_mut(peer) else { return };
        let replaced = participant.blobs.find(&key);
        let more = replaced.is_none();
        let before = replaced.map_or(0, len);
        let added = len(&blob);
        let full = if participant.blobs.len() - before + added > limits::DATA_BLOBS_LEN_MAX {
            Some("data blobs of this participant exceed 64000 bytes")
        } else if more && participant.blobs.0.len() >= limits::DATA_BLOBS_MAX {
            Some("this participant has too many data blobs; store them under fewer keys")
        } else if of_all - before + added > limits::DATA_BLOBS_OF_CALL_LEN_MAX {
            Some("the room's data blobs are too large together")
        } else {
            None
        };
        if let Some(message) = full {
            return refuse(turn, session, id, Reason::LimitExceeded, message, None);
        }
        participant.blobs.store(blob);
        turn.frame(session, Message::StoreDataBlobResponse(lk::StoreDataBlobResponse { request_id: id, key: Some(key) }));
    }

    pub(super) fn handle_get_blob(&self, turn: &mut Turn<'_>, session: &SessionKey, request: &lk::GetDataBlobRequest) {
        let id = request.request_id;
        let Some(key) = &request.key else {
            return refuse(turn, session, id, Reason::InvalidRequest, "data blob key is required", None);
        };
        let Some(owner) = self.by_identity(&request.participant_identity) else {
            return refuse(turn, session, id, Reason::NotFound, "participant not found", None);
        };
        let Some(blob) = owner.blobs.find(key) else {
            return refuse(turn, session, id, Reason::NotFound, "data blob not found", None);
        };
        turn.frame(session, Message::GetDataBlobResponse(lk::GetDataBlobResponse { request_id: id, blob: Some(blob.clone()) }));
    }
}
