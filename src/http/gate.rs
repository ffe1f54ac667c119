//! Who gets in: the names the API answers to, other people's web pages, the token. And the count of every answer.
//!
//! Wraps all routes. What must stay true: whatever is not a GET or HEAD passes all three checks, known path or not.

use actix_web::body::MessageBody;
use actix_web::dev::{RequestHead, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, header};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, ResponseError};

use crate::config::token::Token;
use crate::metrics::Metrics;

use super::problem::ApiError;
use super::route::route;

/// What the gate knows.
pub(super) struct Edge {
    pub metrics: Metrics,
    /// Asked of whoever changes anything.
    pub token: Option<Token>,
    /// The server listens on a loopback address.
    pub loopback: bool,
}

pub(super) async fn gate(
    edge: Data<Edge>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let route = route(request.method().as_str(), request.path());
    let answer = match admit(&edge, request.head()) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(refusal) => Ok(request.into_response(refusal.error_response()).map_into_right_body()),
    };
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    edge.metrics.http_request(route, status.as_u16());
    answer
}

fn admit(edge: &Edge, head: &RequestHead) -> Result<(), ApiError> {
    let text = |name: header::HeaderName| {
        let value = head.headers().get(name);
        value.map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(header::HOST).unwrap_or_default();
    if edge.loopback && !means_this_machine(host) {
        // A name that someone else's DNS pointed here, so that his page may read what this port answers.
        let message = format!("the Host header is `{host}`; localhost or a loopback address expected");
        return Err(ApiError::forbidden("forbidden_host", message));
    }
    if matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    if let Some(origin) = text(header::ORIGIN)
        && !same_host(origin, host)
    {
        let message = format!("web pages of `{origin}` may not change anything here");
        return Err(ApiError::forbidden("forbidden_origin", message));
    }
    match &edge.token {
        Some(token) => authorize(token, text(header::AUTHORIZATION)),
        None => Ok(()),
    }
}

fn means_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _port)) => inside,
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn same_host(origin: &str, host: &str) -> bool {
    let authority = origin.split_once("://").map(|(_scheme, authority)| authority);
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn authorize(token: &Token, header: Option<&str>) -> Result<(), ApiError> {
    let Some(header) = header else {
        return Err(ApiError::unauthorized(
            "this changes something: send `Authorization: Bearer TOKEN` with the token from http.token_file",
        ));
    };
    let offered = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match offered {
        Some((_, offered)) if token.matches(offered.trim()) => Ok(()),
        Some(_) => Err(ApiError::unauthorized(
            "the bearer token is not the one in http.token_file",
        )),
        None => Err(ApiError::unauthorized("the Authorization header is not `Bearer TOKEN`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_mean_this_machine() {
        for good in [
            "localhost",
            "LOCALHOST:9377",
            "127.0.0.1",
            "127.0.0.1:9377",
            "127.8.0.1",
            "[::1]:9377",
            "[::1]",
        ] {
            assert!(means_this_machine(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:9377",
            "[::2]",
            "127.0.0.1.evil.example",
            "[::1",
        ] {
            assert!(!means_this_machine(bad), "{bad}");
        }
    }

    #[test]
    fn only_pages_from_here_are_from_here() {
        assert!(same_host("http://localhost:9377", "localhost:9377"));
        assert!(same_host("https://Teller.example", "teller.example"));
        for bad in [
            "null",
            "http://evil.example",
            "http://localhost:80",
            "localhost:9377",
            "",
        ] {
            assert!(!same_host(bad, "localhost:9377"), "{bad}");
        }
    }

    #[test]
    fn the_token_is_asked_for_word_by_word() {
        let token: Token = "0123456789abcdef".parse().unwrap();
        for good in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
            assert!(authorize(&token, Some(good)).is_ok(), "{good}");
        }
        for bad in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer 0123456789abcdeF"),
            Some("Basic 0123456789abcdef"),
        ] {
            let error = authorize(&token, bad).unwrap_err();
            assert_eq!(error.told().0, 401, "{bad:?}");
            assert!(!error.told().2.contains("0123"), "the sentence repeats the secret");
        }
    }
}
