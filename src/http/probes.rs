//! For machines that watch: metrics, liveness, readiness.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::actors::fleet::{Fleet, Readiness};
use crate::api::ReadyView;

/// Prometheus' text format.
pub(super) async fn metrics(fleet: Data<Fleet>) -> HttpResponse {
    let text = fleet.metrics().await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    HttpResponse::Ok().content_type(kind).body(text)
}

/// The process answers; nothing more is meant.
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain").body("ok\n")
}

/// Whether customers can be served.
pub(super) async fn readyz(fleet: Data<Fleet>) -> HttpResponse {
    let view = ready(fleet.readiness().await);
    let mut answer = if view.ready {
        HttpResponse::Ok()
    } else {
        HttpResponse::ServiceUnavailable()
    };
    answer.json(view)
}

fn ready(readiness: Readiness) -> ReadyView {
    let mut reasons = Vec::new();
    if !readiness.journal {
        reasons.push("the journal takes no records".to_owned());
    }
    if let Err(why) = &readiness.lnd {
        reasons.push(format!("LND can not add invoices: {why}"));
    }
    // One that holds payments for others needs no machine of its own.
    if readiness.atms_in_service == 0 && (readiness.atms > 0 || !readiness.serves_others) {
        reasons.push(format!("none of {} ATMs is in service", readiness.atms));
    }
    ReadyView {
        ready: reasons.is_empty(),
        journal: readiness.journal,
        lnd: readiness.lnd.is_ok(),
        atms_in_service: readiness.atms_in_service,
        atms: readiness.atms,
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_journal_lnd_and_one_machine() {
        let good = Readiness {
            journal: true,
            lnd: Ok(()),
            atms_in_service: 1,
            atms: 2,
            serves_others: false,
        };
        let none = Readiness {
            atms_in_service: 0,
            atms: 0,
            serves_others: true,
            ..good.clone()
        };
        assert!(ready(none.clone()).ready, "a service without machines");
        let (atms, serves_others) = (0, false);
        let view = ready(good.clone());
        assert!(view.ready && view.reasons.is_empty());
        for bad in [
            Readiness {
                journal: false,
                ..good.clone()
            },
            Readiness {
                lnd: Err("down".into()),
                ..good.clone()
            },
            Readiness {
                atms_in_service: 0,
                serves_others: true,
                ..good
            },
            Readiness {
                serves_others,
                ..none.clone()
            },
            Readiness {
                atms,
                lnd: Err("down".into()),
                ..none
            },
        ] {
            let view = ready(bad);
            assert!(!view.ready);
            assert_eq!(view.reasons.len(), 1, "{:?}", view.reasons);
        }
    }
}
