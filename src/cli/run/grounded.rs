//! The word about a grounded test flight: a run stands still until somebody decides. Said once by whoever learns of it, `own` for
//! the nightbus in this process, `desk` for one that runs already.

use std::net::SocketAddr;

use serde_json::Value;

use crate::cli::output::note;

/// A flight that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grounded {
    pub(super) id: String,
    pub(super) reasons: Vec<String>,
}

impl Grounded {
    /// As a request object names it; none: it does not.
    pub(super) fn read(flight: &Value) -> Option<Self> {
        let id = flight.get("id")?.as_str()?.to_owned();
        let reasons = flight.get("reasons").and_then(Value::as_array).into_iter().flatten();
        Some(Self { id, reasons: reasons.filter_map(Value::as_str).map(ToOwned::to_owned).collect() })
    }
}

/// Says so, and what to do next. `admin`: where, if it is known.
pub(super) fn tell(flight: &Grounded, admin: Option<SocketAddr>) {
    let (id, reasons) = (&flight.id, flight.reasons.join("; "));
    let at = admin.map(|admin| format!(" --admin http://{admin}")).unwrap_or_default();
    let which = if admin.is_none() { " (with --admin, if its admin listener is not the usual one)" } else { "" };
    note(&format!(
        "The test flight went wrong: {reasons}. All other calls like these wait for a decision{which}:\n  nightbus flights approve {id}{at}\n  nightbus flights reject {id}{at}\nWithout one they are refused after flight.ground_timeout; nothing is bought until then."
    ));
}
