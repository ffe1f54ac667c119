//! The wire: events of kind 21000 and what is inside them.
//!
//! From outside to inside: [`event`] (size, recipient, signature), [`nip44`] (encryption, two versions), [`shard`] (long
//! messages in pieces), [`envelope`] (request and reply). [`endpoint`] joins them in the order that must hold:
//! signature, decryption, `authIdentifier`, freshness, replay. Used by the client of a service
//! ([`super::caller`]) and made for the service too.

pub mod dropped;
pub mod endpoint;
pub mod envelope;
pub mod event;
pub mod failure;
pub mod keys;
pub mod nip44;
pub mod shard;

#[cfg(test)]
mod tests;

pub use dropped::DropReason;
pub use endpoint::{Endpoint, EndpointFootprint, Freshness, Incoming, Limits, Opened, Origin, SealError, Sight};
pub use envelope::{Outcome, Reply, Request};
pub use event::{KIND, Party, Role, Signed};
pub use failure::{Code, Failure};
pub use nip44::Version;
