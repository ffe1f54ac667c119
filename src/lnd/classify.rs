//! What an answer of LND means: [`LnErrorKind`] from gRPC code and message text.
//!
//! Called by the client for every failed call. What must stay true: the text decides before the code,
//! because LND answers nearly every invoice error with code Unknown; a text this table does not know
//! is never taken for a state of the invoice.
//! Source: fact sheet section 3; for texts marked with a file, that file of lnd v0.21.

use tonic::Code;

use super::LnErrorKind::{self, *};

/// Lower-case fragments of LND's messages. The first that occurs decides.
const TEXTS: &[(&str, LnErrorKind)] = &[
    // Settle and cancel.
    ("invoice still open", StillOpen),
    ("invoice already canceled", AlreadyCanceled),
    ("invoice already settled", AlreadySettled),
    ("unable to locate invoice", NotFound),
    ("invalid preimage length", Invalid),
    // Add.
    ("invoice with payment hash already exists", AlreadyExists),
    ("invalid hash length", Invalid),
    ("amount cannot be negative", Invalid),
    ("sat and msat arguments are mutually exclusive", Invalid),
    ("must be greater than minimum of", Invalid),
    ("greater than max expiry", Invalid),
    ("memo too large", Invalid),
    // Starting, by rpcperms/interceptor.go and macaroons/store.go.
    ("waiting to start, rpc services not available", NotReady),
    ("wallet not created, create one to enable", NotReady),
    ("wallet locked, unlock it to enable", NotReady),
    ("in the process of starting up", NotReady),
    ("macaroon store is locked", NotReady),
    // No final resolution yet, by channeldb/db.go.
    ("htlc unknown", NotFound),
    // Without --store-final-htlc-resolutions, by rpcserver.go; its code Unavailable is otherwise the connection's.
    ("store-final-htlc-resolutions=false", NotStored),
    // Rights, by macaroons/service.go.
    ("permission denied", Denied),
    ("verification failed", Denied),
    ("expected 1 macaroon", Denied),
    ("cannot get macaroon", Denied),
    // A condition in it does not hold: expired, of another address.
    ("not satisfied: ", Denied),
    // The peer died while a stream was open; comes as Unknown or Internal.
    ("h2 protocol error", Unreachable),
];

/// The meaning of a failed call. Tolerates wrapping such as `rpc error: code = Unknown desc = …`.
#[must_use]
pub fn classify(code: Code, message: &str) -> LnErrorKind {
    let message = message.to_ascii_lowercase();
    if let Some((_, kind)) = TEXTS.iter().find(|(text, _)| message.contains(text)) {
        return *kind;
    }
    match code {
        Code::NotFound => NotFound,
        Code::Unavailable => Unreachable,
        Code::DeadlineExceeded | Code::Cancelled => Timeout,
        Code::PermissionDenied | Code::Unauthenticated => Denied,
        _ => Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every failing row of section 3 of the fact sheet, with the texts in full.
    const SHEET: &[(Code, &str, LnErrorKind)] = &[
        (Code::Unknown, "invoice still open", StillOpen),
        (Code::Unknown, "invoice already canceled", AlreadyCanceled),
        (Code::Unknown, "unable to locate invoice", NotFound),
        (Code::Unknown, "invalid preimage length of 31, want 32", Invalid),
        (Code::Unknown, "invoice already settled", AlreadySettled),
        (Code::Unknown, "invoice with payment hash already exists", AlreadyExists),
        (Code::Unknown, "invalid hash length of 5, want 32", Invalid),
        (Code::Unknown, "amount cannot be negative", Invalid),
        (Code::Unknown, "sat and msat arguments are mutually exclusive", Invalid),
        (
            Code::Unknown,
            "CLTV delta of 23 must be greater than minimum of 24",
            Invalid,
        ),
        (
            Code::Unknown,
            "expiry of 8761h0m0s greater than max expiry of 8760h0m0s",
            Invalid,
        ),
        (Code::Unknown, "memo too large: 1025 bytes (maxsize=1024)", Invalid),
        (Code::NotFound, "unable to locate invoice", NotFound),
        (Code::Unknown, "waiting to start, RPC services not available", NotReady),
        (
            Code::Unknown,
            "wallet locked, unlock it to enable full RPC access",
            NotReady,
        ),
        (
            Code::Unknown,
            "the RPC server is in the process of starting up, but not yet ready to accept calls",
            NotReady,
        ),
        (Code::Unknown, "permission denied", Denied),
        (
            Code::Unavailable,
            "cannot lookup with flag --store-final-htlc-resolutions=false",
            NotStored,
        ),
        (Code::NotFound, "htlc unknown", NotFound),
    ];

    #[test]
    fn every_row_of_the_sheet() {
        for (code, text, kind) in SHEET {
            assert_eq!(classify(*code, text), *kind, "{text}");
        }
    }

    #[test]
    fn every_row_also_when_wrapped() {
        for (_, text, kind) in SHEET {
            let wrapped = format!("rpc error: code = Unknown desc = registry: {text} (attempt 2)");
            assert_eq!(classify(Code::Unknown, &wrapped), *kind, "{wrapped}");
        }
    }

    #[test]
    fn macaroons_that_are_not_valid() {
        for text in [
            "verification failed: signature mismatch after caveat verification",
            "expected 1 macaroon, got 0",
            "cannot retrieve macaroon: cannot get macaroon: root key with id 7 doesn't exist",
            "caveat \"time-before 2026-11-25T03:20:01Z\" not satisfied: macaroon has expired",
        ] {
            assert_eq!(classify(Code::Unknown, text), Denied, "{text}");
        }
        assert_eq!(classify(Code::Unknown, "macaroon store is locked"), NotReady);
    }

    #[test]
    fn without_a_known_text_the_code_decides() {
        assert_eq!(classify(Code::NotFound, ""), NotFound);
        assert_eq!(classify(Code::Unavailable, "connection refused"), Unreachable);
        assert_eq!(classify(Code::Internal, "h2 protocol error: broken pipe"), Unreachable);
        assert_eq!(classify(Code::Unknown, "h2 protocol error: http2 error"), Unreachable);
        assert_eq!(classify(Code::DeadlineExceeded, ""), Timeout);
        assert_eq!(classify(Code::Cancelled, "Timeout expired"), Timeout);
        assert_eq!(classify(Code::PermissionDenied, ""), Denied);
        assert_eq!(classify(Code::Unauthenticated, ""), Denied);
    }

    #[test]
    fn an_unknown_text_is_other() {
        for code in [
            Code::Unknown,
            Code::Internal,
            Code::Unimplemented,
            Code::ResourceExhausted,
        ] {
            assert_eq!(classify(code, "invoice is in a strange mood"), Other);
        }
    }
}
