//! `roi`: what a workload costs live and in batches, what that saves, and when the change has paid for itself.

use clap::Args;
use serde_json::json;

use super::UsageError;
use super::human;
use super::output::{self, Output};
use crate::domain::money::Money;
use crate::domain::pricing::PriceTable;
use crate::domain::roi::{DailyBill, Roi, Workload};

/// `nightbus roi`
#[derive(Args, Clone, Debug)]
pub(super) struct RoiArgs {
    /// Calls per day
    #[arg(long, value_name = "N")]
    requests_per_day: u64,
    /// Prompt tokens per call
    #[arg(long, value_name = "N")]
    input_tokens: u64,
    /// Generated tokens per call
    #[arg(long, value_name = "N")]
    output_tokens: u64,
    /// Take live and batch prices of this model from the price list
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["input_price", "output_price"])]
    model: Option<String>,
    /// Live price of a million prompt tokens, in USD; batch is half of it
    #[arg(long, value_name = "USD", value_parser = usd, requires = "output_price", required_unless_present = "model")]
    input_price: Option<Money>,
    /// Live price of a million generated tokens, in USD; batch is half of it
    #[arg(long, value_name = "USD", value_parser = usd, requires = "input_price", required_unless_present = "model")]
    output_price: Option<Money>,
    /// What the change costs to build, in USD
    #[arg(long, value_name = "USD", value_parser = usd, default_value = "0")]
    dev_cost: Money,
    /// What else the change costs (what was not built meanwhile, what slower answers lose), in USD
    #[arg(long, value_name = "USD", value_parser = usd, default_value = "0")]
    opportunity_cost: Money,
    /// Which share of the calls may wait, from 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "1")]
    deferrable_share: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints both scenarios and what follows from them.
pub(super) fn run(args: &RoiArgs, out: Output) -> anyhow::Result<()> {
    let bill = bill(args)?;
    let cost = args.dev_cost.checked_add(args.opportunity_cost);
    let roi = cost.ok_or(crate::domain::roi::RoiError::TooLarge).and_then(|cost| bill.roi(args.deferrable_share, cost));
    let roi = roi.map_err(|error| UsageError(error.to_string()))?;
    if args.json {
        return Ok(output::json(&as_json(args, &roi))?);
    }
    Ok(out.pairs(&as_pairs(args, &roi))?)
}

fn bill(args: &RoiArgs) -> anyhow::Result<DailyBill> {
    let workload = Workload { requests: args.requests_per_day, input: args.input_tokens, output: args.output_tokens };
    let bill = match (&args.model, args.input_price, args.output_price) {
        (Some(model), _, _) => {
            let unknown =
                || UsageError(format!("{model} is not in the price list: give --input-price and --output-price"));
            workload.at_model(PriceTable::builtin().find_anywhere(model).ok_or_else(unknown)?)
        }
        (None, input, output) => workload.at_prices(input.unwrap_or_default(), output.unwrap_or_default()),
    };
    Ok(bill.map_err(|error| UsageError(error.to_string()))?)
}

fn as_pairs(args: &RoiArgs, roi: &Roi) -> Vec<(String, String)> {
    let money = |amount: Money| human::dollars(amount.as_usd_f64());
    let tokens = |per_call: u64| human::number(args.requests_per_day.saturating_mul(per_call));
    let days = roi.payback_days.map_or_else(|| "never: nothing is saved".to_owned(), |days| format!("{days:.1} days"));
    let ratio = match roi.ratio {
        Some(ratio) => format!("{ratio:.2} (a year's saving / {})", money(roi.cost)),
        None => "no cost was given (--dev-cost, --opportunity-cost)".to_owned(),
    };
    let prices = match &args.model {
        Some(model) => format!("{model}, list of {}", PriceTable::builtin().as_of()),
        None => "as given, batch at half".to_owned(),
    };
    let mut rows = vec![
        ("Tokens a day", format!("{} in, {} out", tokens(args.input_tokens), tokens(args.output_tokens))),
        ("Prices", prices),
        ("A: all live", format!("{} a day", money(roi.live))),
        (scenario_b(args), format!("{} a day", money(roi.batch))),
        ("Saved per day", money(roi.saved_day)),
        ("Saved per month", format!("{} (30 days)", money(roi.saved_month))),
        ("Saved per year", format!("{} (365 days)", money(roi.saved_year))),
        ("ROI", ratio),
    ];
    if roi.cost != Money::ZERO {
        rows.push(("Paid back after", days));
    }
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

const fn scenario_b(args: &RoiArgs) -> &'static str {
    if args.deferrable_share == WHOLE { "B: all in batches" } else { "B: that share in batches" }
}

fn as_json(args: &RoiArgs, roi: &Roi) -> serde_json::Value {
    let usd = |amount: Money| amount.as_usd_f64();
    json!({
        "object": "nightbus.roi",
        "requests_per_day": args.requests_per_day,
        "model": args.model,
        "deferrable_share": f64::from(args.deferrable_share) / f64::from(WHOLE),
        "live_usd_per_day": usd(roi.live),
        "batch_usd_per_day": usd(roi.batch),
        "saved_usd_per_day": usd(roi.saved_day),
        "saved_usd_per_month": usd(roi.saved_month),
        "saved_usd_per_year": usd(roi.saved_year),
        "cost_usd": usd(roi.cost),
        "roi": roi.ratio,
        "payback_days": roi.payback_days,
    })
}

/// All calls, in millionths.
const WHOLE: u32 = 1_000_000;

fn share(text: &str) -> Result<u32, String> {
    let amount: Money = text.parse().map_err(|_no_number| "write a share from 0 to 1, such as 0.4".to_owned())?;
    // A share in picodollars, so that the text is read exactly; six places are kept.
    let millionths = u32::try_from(amount.picos() / 1_000_000).ok().filter(|share| *share <= WHOLE);
    millionths.ok_or_else(|| "must be between 0 and 1".to_owned())
}

fn usd(text: &str) -> Result<Money, String> {
    let amount: Money = text.parse().map_err(|_no_amount| "write an amount in USD, such as 3 or 0.25".to_owned())?;
    if amount < Money::ZERO { Err("must not be negative".to_owned()) } else { Ok(amount) }
}
