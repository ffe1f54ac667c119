//! Every answer that is not a success: its status, its fixed word, its sentence.
//!
//! The words are a promise to programs, listed in docs/API.md (a test). What must stay true: a sentence says what to
//! change or where to look, and holds no secret.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};

use crate::actors::fleet::FleetError;
use crate::api::Problem;
use crate::cashout::quote::QuoteError;

/// What outside text a sentence repeats is cut to this length with it.
const LONGEST: usize = 400;

/// A refusal of the API.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(header::HeaderName, &'static str)>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self {
            status,
            code,
            message: message.chars().take(LONGEST).collect(),
            header: None,
        }
    }

    /// The request can not be understood.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// It is understood, and a value in it makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }

    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub fn unauthorized(message: &str) -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        error.header = Some((header::WWW_AUTHENTICATE, "Bearer realm=\"tellerd\""));
        error
    }

    pub fn no_route() -> Self {
        let message = "there is nothing at this path; see docs/API.md for those there are";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// `allow` lists the methods that the path knows.
    pub fn method(allow: &'static str) -> Self {
        let message = format!("this path knows only {allow}");
        let mut error = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message);
        error.header = Some((header::ALLOW, allow));
        error
    }

    #[cfg(test)]
    pub fn told(&self) -> (u16, &'static str, &str) {
        (self.status.as_u16(), self.code, &self.message)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some((name, value)) = &self.header {
            response.insert_header((name.clone(), *value));
        }
        response.json(Problem {
            code: self.code.to_owned(),
            message: self.message.clone(),
        })
    }
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        let (status, code) = match &error {
            FleetError::NoSuchAtm(_) => (StatusCode::NOT_FOUND, "no_such_atm"),
            FleetError::NoSuchCashOut(_) => (StatusCode::NOT_FOUND, "no_such_cashout"),
            FleetError::NoSuchClient(_) => (StatusCode::NOT_FOUND, "no_such_client"),
            FleetError::Quote(QuoteError::OutOfLimits { .. }) => (StatusCode::UNPROCESSABLE_ENTITY, "out_of_limits"),
            FleetError::Quote(QuoteError::Overflow(_)) => (StatusCode::UNPROCESSABLE_ENTITY, "overflow"),
            // The same amount may be had later, when other notes are inside.
            FleetError::Quote(QuoteError::NoMix(_)) => (StatusCode::CONFLICT, "no_mix"),
            FleetError::Quote(QuoteError::NoRate(_)) => (StatusCode::SERVICE_UNAVAILABLE, "no_rate"),
            FleetError::Busy(_) => (StatusCode::CONFLICT, "atm_busy"),
            FleetError::NotInService { .. } => (StatusCode::CONFLICT, "atm_not_in_service"),
            FleetError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            FleetError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, error.to_string())
    }
}
