//! What a file will cost, as far as the price list and the lines tell, and the question whether to go on.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::bail;

use super::check::Checked;
use crate::cli::output::note;
use crate::cli::{UsageError, human};
use crate::config::{Config, ProviderConfig};
use crate::domain::money::Money;
use crate::domain::pricing::Seller;
use crate::domain::service::Service;
use crate::domain::usage::Usage;

/// Text and JSON of a body per prompt token, roughly.
const BYTES_PER_TOKEN: u64 = 4;
/// Counted for a line that sets no limit. A guess, and said to be one.
const ASSUMED_OUTPUT: u64 = 1_000;
/// Cheaper runs begin without a question.
const ASK_ABOVE_USD: f64 = 1.0;

/// What a file will cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Estimate {
    prompt_tokens: u64,
    output_tokens: u64,
    unlimited: u64,
    batch: Money,
    live: Money,
    /// Models whose batch price is not listed.
    unknown: Vec<String>,
}

/// What the command line says about money.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consent {
    pub(super) yes: bool,
    pub(super) max_usd: Option<f64>,
}

impl Estimate {
    /// At the prices of the configuration.
    pub(super) fn of(checked: &Checked, config: &Config, provider: &ProviderConfig) -> Self {
        let mut estimate = Self::default();
        for (model, tally) in &checked.models {
            let lines = tally.lines.max(1);
            let input = tally.bytes / BYTES_PER_TOKEN;
            let output = tally.limited_output.saturating_add(tally.unlimited.saturating_mul(ASSUMED_OUTPUT));
            estimate.prompt_tokens = estimate.prompt_tokens.saturating_add(input);
            estimate.output_tokens = estimate.output_tokens.saturating_add(output);
            estimate.unlimited += tally.unlimited;
            let seller = Seller { name: &provider.name, kind: provider.kind.as_str(), model };
            // By the line, since a long prompt may have a price of its own.
            let each = Usage { input: input.div_ceil(lines), output: output.div_ceil(lines), ..Usage::default() };
            let cost = |service| {
                let price = config.prices.find(seller.name, seller.kind, seller.model)?;
                price.cost(service, &each)?.checked_times(lines)
            };
            match (cost(Service::Batch), cost(Service::Sync)) {
                (Some(batch), Some(live)) => {
                    estimate.batch += batch;
                    estimate.live += live;
                }
                _ => estimate.unknown.push(model.clone()),
            }
        }
        estimate
    }

    /// For people, before anything is sent.
    pub(super) fn describe(&self, checked: &Checked) -> String {
        let models: Vec<&str> = checked.models.keys().map(String::as_str).collect();
        let mut text = format!(
            "{} of {} for {}: about {} prompt tokens, up to {} output tokens.",
            human::counted(checked.lines, "call"),
            checked.endpoint,
            models.join(", "),
            human::number(self.prompt_tokens),
            human::number(self.output_tokens),
        );
        if self.unlimited > 0 {
            text.push_str(&format!(
                " {} of them set no limit; {} tokens are assumed for each.",
                human::number(self.unlimited),
                human::number(ASSUMED_OUTPUT)
            ));
        }
        if self.unknown.is_empty() {
            text.push_str(&format!(
                "\nEstimated price: {} by batch, {} live.",
                human::usd(self.batch.as_usd_f64()),
                human::usd(self.live.as_usd_f64())
            ));
        } else {
            text.push_str(&format!(
                "\nEstimated price: unknown, no batch price is listed for {}.",
                self.unknown.join(", ")
            ));
        }
        text
    }

    /// Returns when the run may begin.
    ///
    /// # Errors
    /// Above `--max-usd`; declined; nobody there to ask.
    pub(super) fn agree(&self, consent: Consent) -> anyhow::Result<()> {
        let known = self.unknown.is_empty().then(|| self.batch.as_usd_f64());
        match (consent.max_usd, known) {
            (Some(most), Some(price)) if price > most => {
                bail!("the estimate of {} is above --max-usd {most}: nothing was sent", human::usd(price))
            }
            (Some(_), None) => bail!(
                "the price is unknown, so that --max-usd cannot be kept: nothing was sent. List the model in a price file (`prices` in proxy.toml), or give --yes without --max-usd."
            ),
            (Some(_), Some(_)) => return Ok(()),
            (None, Some(price)) if price <= ASK_ABOVE_USD => return Ok(()),
            (None, _) if consent.yes => return Ok(()),
            (None, _) => {}
        }
        if !io::stdin().is_terminal() {
            let ask = "this run has to be agreed to: add --yes, or --max-usd with the most that it may cost";
            return Err(UsageError(ask.to_owned()).into());
        }
        note("Go on? [y/N]");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was sent") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cli::run::check::Tally;
    use crate::domain::lane::Endpoint;

    fn estimate(model: &str, tally: Tally) -> Estimate {
        let models = BTreeMap::from([(model.to_owned(), tally)]);
        let endpoint = Endpoint::ChatCompletions;
        let checked = Checked { lines: tally.lines, digest: String::new(), endpoint, models };
        let config = Config::default();
        Estimate::of(&checked, &config, &config.providers["openai"])
    }

    const SOME: Tally = Tally { lines: 1_000, bytes: 4_000_000, limited_output: 1_000_000, unlimited: 0 };

    #[test]
    fn the_price_is_that_of_the_tokens() {
        // gpt-6-luna: 0.05 and 0.25 dollars per million by batch, twice that live.
        let luna = estimate("gpt-6-luna", SOME);
        assert_eq!((luna.prompt_tokens, luna.output_tokens), (1_000_000, 1_000_000));
        assert_eq!((luna.batch.as_usd_f64(), luna.live.as_usd_f64()), (0.3, 0.6));
        let assumed = estimate("gpt-6-luna", Tally { limited_output: 0, unlimited: 1_000, ..SOME });
        assert_eq!(assumed.batch, luna.batch, "1,000 tokens for each");
    }

    #[test]
    fn what_is_dear_or_unknown_needs_consent() {
        let consent = |yes, max_usd| Consent { yes, max_usd };
        let luna = estimate("gpt-6-luna", SOME);
        luna.agree(consent(false, None)).unwrap();
        luna.agree(consent(false, Some(0.3))).unwrap();
        assert!(luna.agree(consent(true, Some(0.29))).unwrap_err().to_string().contains("--max-usd"));
        let unknown = estimate("nobody-knows", SOME);
        unknown.agree(consent(true, None)).unwrap();
        assert!(unknown.agree(consent(true, Some(1e9))).is_err());
        assert_eq!(unknown.unknown, ["nobody-knows"]);
    }
}
