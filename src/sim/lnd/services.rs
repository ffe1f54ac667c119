//! LND's gRPC services, as thin as can be: each method names its right and calls the engine.
//!
//! Called by tonic. Source: fact sheet on LND, sections 2 and 3.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use super::convert;
use super::engine::Engine;
use super::front::{
    ADD_HOLD, Answers, BLOCKS, CANCEL, DEBUG_INFO, GET_INFO, GET_STATE, LIST_CHANNELS, LOOKUP, RESOLUTION, SETTLE,
    SUBSCRIBE, SUBSCRIBE_STATE, WALLET_BALANCE,
};
use super::node::{AddHold, Refusal, Resolution};
use crate::ids::PaymentHash;
use crate::proto::chainrpc::{BlockEpoch, chain_notifier_server::ChainNotifier};
use crate::proto::invoicesrpc::{
    AddHoldInvoiceRequest, AddHoldInvoiceResp, CancelInvoiceMsg, CancelInvoiceResp, SettleInvoiceMsg,
    SettleInvoiceResp, SubscribeSingleInvoiceRequest, invoices_server::Invoices,
};
use crate::proto::lnrpc::{
    self, Chain, GetInfoRequest, GetInfoResponse, GetStateRequest, GetStateResponse, SubscribeStateRequest,
    SubscribeStateResponse, lightning_server::Lightning, state_server::State,
};

/// What `GetInfo` says of the version.
const VERSION: &str = "0.21.2-beta commit=v0.21.2-beta";

/// All services of one node.
#[derive(Clone)]
pub(super) struct Services(pub Arc<Engine>);

#[async_trait]
impl Invoices for Services {
    type SubscribeSingleInvoiceStream = Answers<lnrpc::Invoice>;

    async fn subscribe_single_invoice(
        &self,
        request: Request<SubscribeSingleInvoiceRequest>,
    ) -> Result<Response<Self::SubscribeSingleInvoiceStream>, Status> {
        let subscribe = |engine: &Engine, query: SubscribeSingleInvoiceRequest| {
            let hash = <[u8; 32]>::try_from(query.r_hash.as_slice());
            let hash = hash.map_err(|_| Refusal::HashLength(query.r_hash.len()))?;
            Ok(engine.watch_invoice(PaymentHash(hash))?)
        };
        self.0
            .stream(SUBSCRIBE, request, subscribe, |record| convert::invoice(&record))
            .await
    }

    async fn cancel_invoice(&self, request: Request<CancelInvoiceMsg>) -> Result<Response<CancelInvoiceResp>, Status> {
        let act = |engine: &Engine, query: CancelInvoiceMsg| {
            engine.cancel(&query.payment_hash).map(|()| CancelInvoiceResp {})
        };
        self.0.unary(CANCEL, request, act).await
    }

    async fn add_hold_invoice(
        &self,
        request: Request<AddHoldInvoiceRequest>,
    ) -> Result<Response<AddHoldInvoiceResp>, Status> {
        let act = |engine: &Engine, query: AddHoldInvoiceRequest| {
            let record = engine.add_hold(&AddHold {
                hash: query.hash,
                memo: query.memo,
                description_hash: query.description_hash,
                value: query.value,
                value_msat: query.value_msat,
                expiry: query.expiry,
                cltv_expiry: query.cltv_expiry,
                private: query.private,
            })?;
            Ok(AddHoldInvoiceResp {
                payment_addr: convert::bytes(&record.payment_addr),
                add_index: record.add_index,
                payment_request: record.payment_request,
            })
        };
        self.0.unary(ADD_HOLD, request, act).await
    }

    async fn settle_invoice(&self, request: Request<SettleInvoiceMsg>) -> Result<Response<SettleInvoiceResp>, Status> {
        let act =
            |engine: &Engine, query: SettleInvoiceMsg| engine.settle(&query.preimage).map(|()| SettleInvoiceResp {});
        self.0.unary(SETTLE, request, act).await
    }
}

#[async_trait]
impl Lightning for Services {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        self.0.unary(GET_INFO, request, |engine, _| info(engine)).await
    }

    async fn lookup_invoice(&self, request: Request<lnrpc::PaymentHash>) -> Result<Response<lnrpc::Invoice>, Status> {
        let act = |engine: &Engine, query: lnrpc::PaymentHash| {
            engine.lookup(&query.r_hash).map(|record| convert::invoice(&record))
        };
        self.0.unary(LOOKUP, request, act).await
    }

    async fn lookup_htlc_resolution(
        &self,
        request: Request<lnrpc::LookupHtlcResolutionRequest>,
    ) -> Result<Response<lnrpc::LookupHtlcResolutionResponse>, Status> {
        let act = |engine: &Engine, query: lnrpc::LookupHtlcResolutionRequest| {
            let found = engine.resolution(query.htlc_index)?;
            match found.filter(|_| query.chan_id == convert::CHAN_ID) {
                Some(Resolution { settled, offchain }) => Ok(lnrpc::LookupHtlcResolutionResponse { settled, offchain }),
                None => Err(Status::not_found("htlc unknown")),
            }
        };
        self.0.unary(RESOLUTION, request, act).await
    }

    async fn list_channels(
        &self,
        request: Request<lnrpc::ListChannelsRequest>,
    ) -> Result<Response<lnrpc::ListChannelsResponse>, Status> {
        let list = |engine: &Engine, _| {
            let channel = engine.with(|node, _| node.channel())?;
            Ok(lnrpc::ListChannelsResponse {
                channels: vec![convert::channel(&channel)],
            })
        };
        self.0.unary(LIST_CHANNELS, request, list).await
    }

    async fn wallet_balance(
        &self,
        request: Request<lnrpc::WalletBalanceRequest>,
    ) -> Result<Response<lnrpc::WalletBalanceResponse>, Status> {
        // Nothing ever reaches its wallet on chain.
        let empty = |_: &Engine, _| Ok(lnrpc::WalletBalanceResponse::default());
        self.0.unary(WALLET_BALANCE, request, empty).await
    }

    async fn get_debug_info(
        &self,
        request: Request<lnrpc::GetDebugInfoRequest>,
    ) -> Result<Response<lnrpc::GetDebugInfoResponse>, Status> {
        self.0.unary(DEBUG_INFO, request, |engine, _| settings(engine)).await
    }
}

/// What is configured, by the names of the command line; as far as there is something to configure.
fn settings(engine: &Engine) -> Result<lnrpc::GetDebugInfoResponse, Status> {
    let stores = engine.with(|node, _| node.stores_resolutions())?;
    let config = [
        ("bitcoin.regtest", "true".to_owned()),
        ("invoices.holdexpirydelta", engine.hold_expiry_delta.to_string()),
        ("store-final-htlc-resolutions", stores.to_string()),
    ];
    Ok(lnrpc::GetDebugInfoResponse {
        config: config.map(|(name, value)| (name.to_owned(), value)).into(),
    })
}

fn info(engine: &Engine) -> Result<GetInfoResponse, Status> {
    let (height, stores) = engine.with(|node, _| (node.height(), node.stores_resolutions()))?;
    let out_of_sync = engine.faults.out_of_sync();
    let best_header = out_of_sync.unwrap_or_else(|| engine.now());
    Ok(GetInfoResponse {
        identity_pubkey: engine.signer.pubkey(),
        alias: "tellersim".into(),
        num_active_channels: 1,
        num_peers: 1,
        block_height: height,
        block_hash: hex::encode(block_hash(height)),
        synced_to_chain: out_of_sync.is_none(),
        best_header_timestamp: i64::try_from(best_header.as_secs()).unwrap_or(i64::MAX),
        version: VERSION.into(),
        num_inactive_channels: 0,
        chains: vec![Chain {
            network: "regtest".into(),
        }],
        synced_to_graph: true,
        store_final_htlc_resolutions: stores,
    })
}

/// There is no chain; a height has always the same made-up hash.
fn block_hash(height: u32) -> Vec<u8> {
    Sha256::digest(height.to_be_bytes()).to_vec()
}

#[async_trait]
impl ChainNotifier for Services {
    type RegisterBlockEpochNtfnStream = Answers<BlockEpoch>;

    async fn register_block_epoch_ntfn(
        &self,
        request: Request<BlockEpoch>,
    ) -> Result<Response<Self::RegisterBlockEpochNtfnStream>, Status> {
        let subscribe = |engine: &Engine, _| Ok(engine.watch_blocks()?);
        let convert = |height| BlockEpoch {
            hash: block_hash(height),
            height,
        };
        self.0.stream(BLOCKS, request, subscribe, convert).await
    }
}

#[async_trait]
impl State for Services {
    type SubscribeStateStream = Answers<SubscribeStateResponse>;

    async fn subscribe_state(
        &self,
        request: Request<SubscribeStateRequest>,
    ) -> Result<Response<Self::SubscribeStateStream>, Status> {
        let epoch = self.0.faults.epoch();
        self.0.admit(SUBSCRIBE_STATE, request.metadata())?;
        self.0.faults.fail(SUBSCRIBE_STATE.name)?;
        self.0.faults.hang(SUBSCRIBE_STATE.name, epoch).await?;
        let states = WatchStream::new(self.0.state.subscribe());
        Ok(Response::new(
            states
                .map(|state| Ok(SubscribeStateResponse { state: state.into() }))
                .boxed(),
        ))
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        let act = |engine: &Engine, _| {
            Ok(GetStateResponse {
                state: (*engine.state.borrow()).into(),
            })
        };
        self.0.unary(GET_STATE, request, act).await
    }
}
