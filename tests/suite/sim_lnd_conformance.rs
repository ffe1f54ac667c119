//! The simulated LND against the table of what a real one answers; tests/real_lnd runs the same table on both.

use crate::conformance::{Case, calls, differences, payments, rescue, restarts, streams};

async fn agrees(cases: &[Case]) {
    let differences = differences(cases).await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn calls_are_answered_as_by_lnd() {
    for cases in [calls::EMPTY, calls::ADDS, calls::STATES, calls::NODE] {
        agrees(cases).await;
    }
}

#[tokio::test]
async fn htlcs_are_kept_and_failed_as_by_lnd() {
    for cases in [payments::ALL, payments::FULL] {
        agrees(cases).await;
    }
}

#[tokio::test]
async fn streams_flow_and_end_as_lnds() {
    for cases in [streams::QUIET, streams::ENDS] {
        agrees(cases).await;
    }
}

#[tokio::test]
async fn it_starts_and_comes_back_as_lnd() {
    for cases in [restarts::ALL, rescue::OPEN_CHANNEL] {
        agrees(cases).await;
    }
}
