//! The plaintext: a request, a reply, or a piece of either.
//!
//! Owns the names that surround a method's own fields. Called by `endpoint.rs` for what comes in, by the service and its
//! client for what goes out. What must stay true: a request of an authenticated caller is never lost for a bad field, it
//! becomes an error that names the field; no input is printed, because it may hold a preimage.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::nostr::field::{self, BadField, Object};

use super::dropped::DropReason;
use super::failure::{Code, Failure};
use super::shard::Shard;

/// Fields that surround a result. No result has a field of these names.
pub const RESERVED: &[&str] = &["status", "reason", "code", "requestId", "rpcName", "shardsId", "part"];
/// Runs several requests as one.
pub const BATCH: &str = "BatchUser";
/// The most requests in one [`BATCH`].
pub const BATCH_MAX: usize = 10;
const RPC_NAME_BYTES: usize = 64;
const REQUEST_ID_BYTES: usize = 128;

/// What is asked, by whom it is asked being proven elsewhere.
#[derive(Clone, PartialEq)]
pub struct Request {
    /// The method, as spelt by the caller.
    pub rpc_name: String,
    /// Its input.
    pub input: Object,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({})", field::shown(&self.rpc_name))
    }
}

impl Request {
    /// The plaintext of this request, asked by the holder of `own_pubkey_hex`.
    #[must_use]
    pub fn encode(&self, own_pubkey_hex: &str, request_id: &str) -> String {
        json!({
            "rpcName": self.rpc_name,
            "authIdentifier": own_pubkey_hex,
            "body": self.input,
            "requestId": request_id,
        })
        .to_string()
    }

    /// Several requests as one.
    #[must_use]
    pub fn batch(requests: Vec<Self>) -> Self {
        let requests: Vec<Value> = requests
            .into_iter()
            .map(|one| json!({"rpcName": one.rpc_name, "req": one.input}))
            .collect();
        let mut input = Object::new();
        input.insert("requests".into(), requests.into());
        Self {
            rpc_name: BATCH.into(),
            input,
        }
    }

    /// The requests inside a [`BATCH`], each read for itself; `None` when this is not one.
    #[must_use]
    pub fn entries(&self) -> Option<Result<Vec<Result<Self, BadField>>, BadField>> {
        let names_batch = self.rpc_name == BATCH || self.rpc_name == "batchUser";
        names_batch.then(|| {
            field::refuse_unknown(&self.input, &["requests"])?;
            let list = field::value(&self.input, "requests").and_then(Value::as_array);
            let list = list.ok_or_else(|| BadField::new("requests", "must be a list"))?;
            if list.len() > BATCH_MAX {
                return Err(BadField::new("requests", format!("may hold at most {BATCH_MAX}")));
            }
            Ok(list.iter().enumerate().map(|(i, entry)| read_entry(i, entry)).collect())
        })
    }
}

/// One request of a batch. Its input is in `req`.
fn read_entry(index: usize, entry: &Value) -> Result<Request, BadField> {
    let path = format!("requests[{index}]");
    let read = |entry: &Object| {
        let rpc_name = field::text(entry, "rpcName", RPC_NAME_BYTES)?.to_owned();
        Ok(Request {
            rpc_name,
            input: input_of(entry, &["req"])?,
        })
    };
    match entry.as_object() {
        Some(entry) => read(entry).map_err(|error: BadField| error.inside(&path)),
        None => Err(BadField::new(&path, "must be an object")),
    }
}

/// The first of `places` that holds something; `{}` counts as nothing.
fn input_of(object: &Object, places: &[&str]) -> Result<Object, BadField> {
    for place in places {
        match object.get(*place) {
            None | Some(Value::Null) => {}
            Some(Value::Object(input)) if input.is_empty() => {}
            Some(Value::Object(input)) => return Ok(input.clone()),
            Some(_) => return Err(BadField::new(place, "must be an object")),
        }
    }
    Ok(Object::new())
}

/// How a request ended.
#[derive(Clone, PartialEq)]
pub enum Outcome {
    /// The result's fields.
    Ok(Object),
    /// Why not.
    Error(Failure),
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(_) => f.write_str("Ok"),
            Self::Error(failure) => write!(f, "Error({failure})"),
        }
    }
}

/// A result that can not be put beside `status`.
#[derive(Debug, Error)]
pub enum BadResult {
    /// Not an object.
    #[error("a result must be an object")]
    NotAnObject,
    /// One of [`RESERVED`].
    #[error("a result must not have a field `{0}`")]
    Reserved(String),
    /// Not JSON.
    #[error("a result is not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Outcome {
    /// Success with `result`, whose fields will stand beside `status`.
    pub fn success(result: &impl Serialize) -> Result<Self, BadResult> {
        let Value::Object(fields) = serde_json::to_value(result)? else {
            return Err(BadResult::NotAnObject);
        };
        match fields.keys().find(|name| RESERVED.contains(&name.as_str())) {
            Some(name) => Err(BadResult::Reserved(name.clone())),
            None => Ok(Self::Ok(fields)),
        }
    }

    /// Success of a batch.
    #[must_use]
    pub fn batch(outcomes: Vec<Self>) -> Self {
        let responses: Vec<Value> = outcomes.into_iter().map(|one| one.into_object().into()).collect();
        let mut fields = Object::new();
        fields.insert("responses".into(), responses.into());
        Self::Ok(fields)
    }

    /// The answers inside the answer to a batch.
    pub fn responses(fields: &Object) -> Result<Vec<Self>, BadField> {
        let list = field::value(fields, "responses").and_then(Value::as_array);
        let list = list.ok_or_else(|| BadField::new("responses", "must be a list"))?;
        let read = |(i, one): (usize, &Value)| {
            let path = format!("responses[{i}]");
            let object = one
                .as_object()
                .ok_or_else(|| BadField::new(&path, "must be an object"))?;
            Self::read(object.clone()).map_err(|error| error.inside(&path))
        };
        list.iter().enumerate().map(read).collect()
    }

    fn into_object(self) -> Object {
        let (status, mut fields) = match self {
            Self::Ok(fields) => ("OK", fields),
            Self::Error(Failure { code, reason }) => {
                let mut fields = Object::new();
                fields.insert("code".into(), code.as_str().into());
                fields.insert("reason".into(), reason.into());
                ("ERROR", fields)
            }
        };
        fields.insert("status".into(), status.into());
        fields
    }

    fn read(mut fields: Object) -> Result<Self, BadField> {
        match fields.remove("status").as_ref().and_then(Value::as_str) {
            Some("OK") => Ok(Self::Ok(fields)),
            Some("ERROR") => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str);
                let code = text("code").map_or(Code::Other, Code::of_word);
                Ok(Self::Error(Failure::new(
                    code,
                    text("reason").unwrap_or("no reason given"),
                )))
            }
            _ => Err(BadField::new("status", "must be OK or ERROR")),
        }
    }
}

/// An answer or a push.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Which request it answers; the method's name in a push.
    pub request_id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Reply {
    /// The plaintext.
    #[must_use]
    pub fn encode(self) -> String {
        let mut object = self.outcome.into_object();
        if let Some(id) = self.request_id {
            object.insert("requestId".into(), id.into());
        }
        Value::Object(object).to_string()
    }

    fn read(mut object: Object) -> Result<Self, BadField> {
        let request_id = field::optional_text(&object, "requestId", REQUEST_ID_BYTES)?.map(str::to_owned);
        object.remove("requestId");
        let outcome = Outcome::read(object)?;
        Ok(Self { request_id, outcome })
    }
}

/// A request as it came: who it says it is from, and what could be read of it.
#[derive(Debug)]
pub(super) struct RequestEnvelope {
    pub auth_identifier: Option<String>,
    /// Kept even when the request is bad, for the answer.
    pub request_id: Option<String>,
    pub request: Result<Request, BadField>,
}

impl RequestEnvelope {
    fn read(object: &Object) -> Self {
        let request_id = field::optional_text(object, "requestId", REQUEST_ID_BYTES).map(|id| id.map(str::to_owned));
        let read = |object: &Object| {
            Ok(Request {
                rpc_name: field::text(object, "rpcName", RPC_NAME_BYTES)?.to_owned(),
                input: input_of(object, &["body", "params"])?,
            })
        };
        let auth_identifier = object.get("authIdentifier").and_then(Value::as_str).map(str::to_owned);
        match request_id {
            Ok(request_id) => Self {
                auth_identifier,
                request_id,
                request: read(object),
            },
            Err(error) => Self {
                auth_identifier,
                request_id: None,
                request: Err(error),
            },
        }
    }
}

/// What a plaintext is.
#[derive(Debug)]
pub(super) enum Plain {
    Request(RequestEnvelope),
    Reply(Reply),
    Shard(Shard),
}

impl Plain {
    /// `rpcName` marks a request, `shardsId` a piece, `status` a reply.
    pub fn read(text: &str) -> Result<Self, DropReason> {
        let Ok(Value::Object(object)) = serde_json::from_str(text) else {
            return Err(DropReason::NotJson);
        };
        if object.contains_key("rpcName") {
            Ok(Self::Request(RequestEnvelope::read(&object)))
        } else if object.contains_key("shardsId") {
            Shard::read(&object).map(Self::Shard).map_err(|_| DropReason::BadShard)
        } else {
            Reply::read(object).map(Self::Reply).map_err(|_| DropReason::Unexpected)
        }
    }
}
