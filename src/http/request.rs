//! What requests bring: ids in the path, bodies, the query of the list. Read and checked before a handler runs.
//!
//! What must stay true: a refusal names the field, or the byte where the text went wrong.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Query};
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;

use crate::api::{
    CancelCashOut, InviteClient, LoadCassettes, Ordered, ResolveCashOut, StartCashOut, cassettes_problem,
};
use crate::ids::{AtmId, CashOutId};

use super::MOST_BYTES;
use super::problem::ApiError;

/// The `{id}` of the path.
pub(super) struct Id<T>(pub T);

impl<T: FromStr<Err: Display>> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("id").unwrap_or_default();
        let bad = |error: T::Err| ApiError::bad("bad_id", format!("in the path, {error}"));
        ready(text.parse().map(Self).map_err(bad))
    }
}

/// A body, read and checked.
pub(super) struct Json<T>(pub T);

/// A body, or the default when there is none.
pub(super) struct OptionalJson<T>(pub T);

type Reading<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

impl<T: DeserializeOwned + Checked> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let bytes = bytes(request, payload);
        Box::pin(async move { parse(&bytes.await?, is_json).map(Self) })
    }
}

impl<T: DeserializeOwned + Checked + Default> FromRequest for OptionalJson<T> {
    type Error = ApiError;
    type Future = Reading<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let bytes = bytes(request, payload);
        Box::pin(async move {
            let bytes = bytes.await?;
            if bytes.is_empty() {
                return Ok(Self(T::default()));
            }
            parse(&bytes, is_json).map(Self)
        })
    }
}

fn bytes(request: &HttpRequest, payload: &mut Payload) -> impl Future<Output = Result<Bytes, ApiError>> + 'static {
    let reading = Bytes::from_request(request, payload);
    async move {
        reading.await.map_err(|error| match error.as_error() {
            Some(PayloadError::Overflow) => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body has more than {MOST_BYTES} bytes"),
            ),
            _ => ApiError::bad("bad_body", format!("the body did not arrive: {error}")),
        })
    }
}

/// Asked for because a web page can send other types elsewhere without asking first.
fn is_json(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE);
    let kind = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned + Checked>(bytes: &[u8], is_json: bool) -> Result<T, ApiError> {
    if !is_json {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "send the header `Content-Type: application/json`",
        ));
    }
    let value: T = serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        ApiError::bad(
            "bad_json",
            format!("the body, at byte {}: {what}", offset(bytes, &error)),
        )
    })?;
    value.check()?;
    Ok(value)
}

/// Where reading stopped.
fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column()).min(bytes.len())
}

/// What JSON's types can not say.
pub(super) trait Checked {
    /// Names the first field that makes no sense.
    fn check(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Checked for StartCashOut {}

impl Checked for Ordered {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.by)
    }
}

impl Checked for InviteClient {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.by)
    }
}

impl Checked for CancelCashOut {
    fn check(&self) -> Result<(), ApiError> {
        self.by.as_deref().map_or(Ok(()), name)
    }
}

impl Checked for ResolveCashOut {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.by)?;
        if self.note.chars().count() > 1_000 {
            return Err(ApiError::invalid("note: at most 1000 characters expected"));
        }
        Ok(())
    }
}

impl Checked for LoadCassettes {
    fn check(&self) -> Result<(), ApiError> {
        name(&self.by)?;
        match cassettes_problem(&self.cassettes) {
            Some((field, problem)) => Err(ApiError::invalid(format!("{field}: {problem}"))),
            None => Ok(()),
        }
    }
}

/// It is kept in the journal for ever and shown in one line.
fn name(by: &str) -> Result<(), ApiError> {
    let fits = !by.trim().is_empty() && by.chars().count() <= 64 && !by.chars().any(char::is_control);
    if fits {
        Ok(())
    } else {
        Err(ApiError::invalid("by: a name of 1 to 64 characters expected"))
    }
}

/// The query of `GET /v1/cashouts`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub atm: Option<AtmId>,
    pub before: Option<CashOutId>,
    pub limit: usize,
}

impl FromRequest for ListQuery {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(list_query(request.query_string()))
    }
}

fn list_query(text: &str) -> Result<ListQuery, ApiError> {
    let bad = |name: &str, what: &dyn Display| ApiError::bad("bad_query", format!("in the query, {name}: {what}"));
    let pairs = Query::<Vec<(String, String)>>::from_query(text);
    let pairs = pairs.map_err(|error| ApiError::bad("bad_query", format!("the query: {error}")))?;
    let mut query = ListQuery {
        atm: None,
        before: None,
        limit: 50,
    };
    let mut seen = BTreeSet::new();
    for (name, value) in pairs.into_inner() {
        match name.as_str() {
            "atm" => query.atm = Some(value.parse().map_err(|error| bad("atm", &error))?),
            "before" => query.before = Some(value.parse().map_err(|error| bad("before", &error))?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=500).contains(limit));
                query.limit = limit.ok_or_else(|| bad("limit", &"a number from 1 to 500 expected"))?;
            }
            _ => return Err(bad(&name, &"not known; atm, before and limit are")),
        }
        if !seen.insert(name.clone()) {
            return Err(bad(&name, &"given twice"));
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_query_is_read_strictly() {
        let none = list_query("").unwrap();
        assert_eq!((none.atm, none.before, none.limit), (None, None, 50));
        let all = list_query("limit=500&atm=lobby&before=01JD2M9K7Q8XWV3F").unwrap();
        assert_eq!(all.limit, 500);
        assert_eq!(all.atm.unwrap().as_str(), "lobby");
        assert_eq!(all.before.unwrap().as_str(), "01JD2M9K7Q8XWV3F");
        for (bad, named) in [
            ("limit=0", "limit"),
            ("limit=501", "limit"),
            ("limit=-1", "limit"),
            ("limit=", "limit"),
            ("atm=Lobby", "atm"),
            ("before=1", "before"),
            ("after=1", "after"),
            ("limit=1&limit=2", "twice"),
        ] {
            let error = list_query(bad).unwrap_err();
            assert_eq!((error.told().0, error.told().1), (400, "bad_query"), "{bad}");
            assert!(error.told().2.contains(named), "{bad}: {}", error.told().2);
        }
    }

    fn refusal<T: DeserializeOwned + Checked>(text: &str) -> (u16, &'static str, String) {
        let error = parse::<T>(text.as_bytes(), true).err().unwrap();
        let (status, code, message) = error.told();
        (status, code, message.to_owned())
    }

    #[test]
    fn a_wrong_body_is_told_with_its_byte_or_field() {
        let (status, code, message) = refusal::<StartCashOut>("{\"atm\":\"lobby\",\n\"amount_minor\":\"60\"}");
        assert_eq!((status, code), (400, "bad_json"));
        assert!(
            message.starts_with("the body, at byte 35: invalid type: string"),
            "{message}"
        );
        for (text, named) in [
            ("", "at byte 0"),
            ("{\"atm\":\"lobby\"}", "missing field `amount_minor`"),
            ("{\"atm\":\"lobby\",\"amount_minor\":6000.0}", "floating point"),
            ("{\"atm\":\"lobby\",\"amount_minor\":-1}", "integer `-1`"),
            ("{\"atm\":\"Lobby\",\"amount_minor\":1}", "not an ATM id"),
            ("{\"atm\":\"lobby\",\"amount_minor\":1,\"x\":1}", "unknown field `x`"),
            ("{} {}", "missing field"),
        ] {
            let (status, code, message) = refusal::<StartCashOut>(text);
            assert_eq!((status, code), (400, "bad_json"), "{text}");
            assert!(message.contains(named), "{text}: {message}");
        }
    }

    #[test]
    fn values_without_sense_are_told_with_their_field() {
        let load =
            |cassettes: &str| refusal::<LoadCassettes>(&format!("{{\"by\":\"ada\",\"cassettes\":[{cassettes}]}}"));
        let one = r#"{"position":1,"denomination_minor":2000,"notes":5}"#;
        for ((status, code, message), named) in [
            (load(""), "cassettes: "),
            (
                load(&one.replace("\"position\":1", "\"position\":0")),
                "cassettes[0].position",
            ),
            (
                load(&format!("{one},{one}")),
                "cassettes[1].position: it is given twice",
            ),
            (load(&one.replace("2000", "0")), "cassettes[0].denomination_minor"),
            (refusal::<Ordered>(r#"{"by":" "}"#), "by: "),
            (refusal::<Ordered>(r#"{"by":"a\nb"}"#), "by: "),
            (refusal::<CancelCashOut>(r#"{"by":""}"#), "by: "),
            (refusal::<InviteClient>(r#"{"name":"kiosk","by":""}"#), "by: "),
        ] {
            assert_eq!((status, code), (422, "invalid"), "{message}");
            assert!(message.starts_with(named), "{message}");
        }
        let long = format!(r#"{{"by":"ada","decision":"close","note":"{}"}}"#, "n".repeat(1_001));
        assert!(refusal::<ResolveCashOut>(&long).2.starts_with("note: "));
    }

    #[test]
    fn another_content_type_is_refused() {
        let error = parse::<StartCashOut>(b"{}", false).unwrap_err();
        assert_eq!((error.told().0, error.told().1), (415, "content_type"));
    }
}
