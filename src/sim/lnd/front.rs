//! What every call passes before and after it takes effect: state of the node, macaroon, faults.
//!
//! Called by the services. Must stay true: a refused call has no effect; an admitted one goes on although its
//! caller has left, as a Go handler does. Source: fact sheet on LND, sections 2 and 3.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::connections::ConnectionId;
use super::credentials::Role;
use super::engine::{Engine, Subscription};
use crate::proto::lnrpc::WalletState;

/// What a macaroon must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing: the State service, which also answers while LND starts.
    None,
    Read,
    Write,
    /// The control interface: the admin macaroon, in any state of the node, and no faults.
    Control,
}

/// A method of a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method {
    pub name: &'static str,
    pub right: Right,
}

const fn method(name: &'static str, right: Right) -> Method {
    Method { name, right }
}

pub(super) const GET_STATE: Method = method("GetState", Right::None);
pub(super) const SUBSCRIBE_STATE: Method = method("SubscribeState", Right::None);
pub(super) const GET_INFO: Method = method("GetInfo", Right::Read);
pub(super) const LOOKUP: Method = method("LookupInvoice", Right::Read);
pub(super) const ADD_HOLD: Method = method("AddHoldInvoice", Right::Write);
pub(super) const SETTLE: Method = method("SettleInvoice", Right::Write);
pub(super) const CANCEL: Method = method("CancelInvoice", Right::Write);
pub(super) const LIST_CHANNELS: Method = method("ListChannels", Right::Read);
pub(super) const WALLET_BALANCE: Method = method("WalletBalance", Right::Read);
pub(super) const DEBUG_INFO: Method = method("GetDebugInfo", Right::Read);
pub(super) const SUBSCRIBE: Method = method("SubscribeSingleInvoice", Right::Read);
pub(super) const RESOLUTION: Method = method("LookupHtlcResolution", Right::Read);
pub(super) const HTLC_EVENTS: Method = method("SubscribeHtlcEvents", Right::Read);
pub(super) const BLOCKS: Method = method("RegisterBlockEpochNtfn", Right::Read);

/// What docs/LND.md has the operator bake for tellerd.
const TELLERD: [&str; 11] = [
    "GetInfo",
    "LookupInvoice",
    "AddHoldInvoice",
    "SettleInvoice",
    "CancelInvoice",
    "SubscribeSingleInvoice",
    "RegisterBlockEpochNtfn",
    "LookupHtlcResolution",
    "SubscribeHtlcEvents",
    "ListChannels",
    "GetDebugInfo",
];

/// Whether faults can be aimed at a method of this name.
pub(super) fn is_method(name: &str) -> bool {
    let methods = [
        GET_STATE,
        SUBSCRIBE_STATE,
        GET_INFO,
        LOOKUP,
        ADD_HOLD,
        SETTLE,
        CANCEL,
        SUBSCRIBE,
        RESOLUTION,
        HTLC_EVENTS,
        BLOCKS,
        LIST_CHANNELS,
        WALLET_BALANCE,
        DEBUG_INFO,
    ];
    methods.iter().any(|method| method.name == name)
}

/// A stream of answers.
pub(super) type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

impl Engine {
    /// Refuses a call by the node's state or its macaroon. LND checks them in this order.
    pub fn admit(&self, method: Method, metadata: &MetadataMap) -> Result<(), Status> {
        match method.right {
            Right::None => return Ok(()),
            Right::Control => {}
            Right::Read | Right::Write => self.started()?,
        }
        let mut values = metadata.get_all("macaroon").iter();
        let count = metadata.get_all("macaroon").iter().count();
        let (Some(value), 1) = (values.next(), count) else {
            return Err(Status::unknown(format!("expected 1 macaroon, got {count}")));
        };
        let macaroon = hex::decode(value.as_bytes()).map_err(|err| Status::unknown(format!("encoding/hex: {err}")))?;
        let role = self.credentials.role(&macaroon, self.now()).map_err(Status::unknown)?;
        let allowed = match role {
            Role::Admin => true,
            Role::ReadOnly => method.right == Right::Read,
            Role::Tellerd => TELLERD.contains(&method.name),
        };
        if allowed {
            Ok(())
        } else {
            Err(Status::unknown("permission denied"))
        }
    }

    fn started(&self) -> Result<(), Status> {
        Err(Status::unknown(match *self.state.borrow() {
            WalletState::RpcActive | WalletState::ServerActive => return Ok(()),
            WalletState::WaitingToStart => "waiting to start, RPC services not available",
            WalletState::NonExisting => "wallet not created, create one to enable full RPC access",
            WalletState::Locked => "wallet locked, unlock it to enable full RPC access",
            WalletState::Unlocked => {
                "the RPC server is in the process of starting up, but not yet ready to accept calls"
            }
        }))
    }

    /// A call with one answer.
    pub async fn unary<Q, A>(
        self: &Arc<Self>,
        method: Method,
        request: Request<Q>,
        act: impl FnOnce(&Self, Q) -> Result<A, Status> + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let epoch = self.faults.epoch();
        self.admit(method, request.metadata())?;
        let connection = request.extensions().get::<ConnectionId>().copied();
        let query = request.into_inner();
        let engine = Arc::clone(self);
        let call = tokio::spawn(async move {
            engine.faults.fail(method.name)?;
            engine.faults.hang(method.name, epoch).await?;
            let answer = act(&engine, query);
            if engine.faults.lose_reply(method.name)
                && let Some(id) = connection
            {
                engine.connections.cut_one(id);
            }
            if method.name == ADD_HOLD.name {
                engine.fully_started(epoch).await?;
            }
            engine.faults.slow().await;
            answer.map(Response::new)
        });
        call.await
            .unwrap_or_else(|err| Err(Status::internal(format!("the call died: {err}"))))
    }

    /// A call with a stream of answers. Its response begins with the first of them, as in a Go server.
    pub async fn stream<Q, T, A>(
        self: &Arc<Self>,
        method: Method,
        request: Request<Q>,
        subscribe: impl FnOnce(&Self, Q) -> Result<Subscription<T>, Status> + Send,
        convert: impl Fn(T) -> A + Send + 'static,
    ) -> Result<Response<Answers<A>>, Status>
    where
        Q: Send + 'static,
        T: Send + 'static,
        A: Send + 'static,
    {
        let epoch = self.faults.epoch();
        self.admit(method, request.metadata())?;
        self.faults.fail(method.name)?;
        self.faults.hang(method.name, epoch).await?;
        self.fully_started(epoch).await?;
        let subscription = subscribe(self, request.into_inner())?;
        let engine = Arc::clone(self);
        let items = stream::unfold((engine, subscription), move |(engine, mut subscription)| async move {
            let item = subscription.recv().await?;
            if let Err(closing) = engine.faults.hang(method.name, epoch).await {
                subscription.close();
                return Some((Err(closing), (engine, subscription)));
            }
            engine.faults.slow().await;
            Some((item, (engine, subscription)))
        });
        let mut answers = items.map(move |item| item.map(&convert)).boxed();
        Ok(Response::new(match answers.next().await {
            Some(first) => stream::once(async move { first }).chain(answers).boxed(),
            None => answers,
        }))
    }

    /// Waits for SERVER_ACTIVE. An error when the process died meanwhile.
    async fn fully_started(&self, epoch: u64) -> Result<(), Status> {
        let mut state = self.state.subscribe();
        let closing = || Status::unavailable("transport is closing");
        loop {
            if self.faults.epoch() != epoch {
                return Err(closing());
            }
            if *state.borrow_and_update() == WalletState::ServerActive {
                return Ok(());
            }
            state.changed().await.map_err(|_| closing())?;
        }
    }
}
