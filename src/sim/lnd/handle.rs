//! In-process control of the simulated LND: what `tellersim.Control` offers, without the wire.
//!
//! Called by `tellerd simulate`, audits and tests, from any thread, with or without a runtime.

use std::sync::Arc;

use super::engine::Engine;
use super::node::record::Payment;
use super::{Fault, Ledger, PayOptions, SimError};

/// Controls a simulated LND. Cheap to clone.
#[derive(Clone)]
pub struct SimHandle {
    engine: Arc<Engine>,
}

impl SimHandle {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Pays an invoice as a customer's wallet; returns the payment's id at once.
    pub fn pay(&self, payment_request: &str, options: &PayOptions) -> Result<u64, SimError> {
        self.engine.pay(payment_request, options)
    }

    /// A payment as the customer sees it now.
    pub fn payment(&self, id: u64) -> Result<Payment, SimError> {
        self.engine.payment(id)
    }

    /// Waits until a payment has succeeded or failed.
    pub async fn ended_payment(&self, id: u64) -> Result<Payment, SimError> {
        self.engine.ended_payment(id).await
    }

    /// Mines blocks; returns the new height.
    pub fn advance_blocks(&self, blocks: u32) -> Result<u32, SimError> {
        self.engine.mine(blocks)
    }

    /// Mines a block every so often; 0 stops.
    pub fn set_block_interval(&self, interval_ms: u64) {
        self.engine.block_interval_ms.send_replace(interval_ms);
    }

    /// Injects a fault. It needs a serving node to end a restart.
    pub fn inject(&self, fault: Fault) -> Result<(), SimError> {
        self.engine.inject(fault, None)
    }

    /// As after a restart with or without `--store-final-htlc-resolutions`, but without the restart.
    pub fn store_resolutions(&self, store: bool) -> Result<(), SimError> {
        self.engine.with(|node, _| node.store_resolutions(store))
    }

    /// How many calls and streams wait in a [`Fault::Hang`] now.
    #[must_use]
    pub fn hanging_calls(&self) -> usize {
        self.engine.faults.hanging()
    }

    /// How many streams of invoices are open now.
    #[must_use]
    pub fn invoice_streams(&self) -> usize {
        self.engine.invoice_streams()
    }

    /// Everything that happened.
    pub fn ledger(&self) -> Result<Ledger, SimError> {
        self.engine.ledger()
    }

    /// Does what is due by the clock now; the serving node does so every 50 ms by itself.
    pub fn tick(&self) -> Result<(), SimError> {
        self.engine.tick()
    }

    /// Ends the serving future and frees the directory, as if the process had been killed.
    pub fn shutdown(&self) {
        self.engine.stop.send_replace(true);
        self.engine.close();
    }
}
