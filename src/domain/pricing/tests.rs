use super::*;

fn openai(model: &str) -> &'static ModelPrice {
    PriceTable::builtin().find("openai", "openai", model).unwrap_or_else(|| panic!("no price for {model}"))
}

fn usage(input: u64, cached: u64, cache_written: u64, output: u64) -> Usage {
    Usage { input, cached, cache_written, output, ..Usage::default() }
}

fn usd(text: &str) -> Option<Money> {
    Some(text.parse().unwrap())
}

const MILLION: u64 = 1_000_000;

#[test]
fn the_builtin_list_is_whole() {
    let table = PriceTable::from_json(BUILTIN_JSON.as_bytes()).unwrap();
    assert_eq!(table.as_of(), "2026-11-23");
    assert_eq!(table.len(), 234);
    assert!(BUILTIN_JSON.contains("MIT License, Copyright (c) 2023 Berri AI"), "the notice must stay");
    for (provider, models) in &table.providers {
        for (model, price) in models {
            assert!(price.base.sync.is_some(), "{provider} {model} has no live price");
            if let (Some(sync), Some(batch)) = (price.base.sync, price.base.batch) {
                assert!(batch.input <= sync.input && batch.output <= sync.output, "{provider} {model}");
            }
        }
    }
}

#[test]
fn a_small_request_costs_what_the_list_says() {
    let luna = openai("gpt-6-luna");
    let small = usage(9, 0, 0, 2);
    // 9 x 0.05 + 2 x 0.25 = 0.95 millionths of a dollar
    assert_eq!(luna.cost(Service::Batch, &small), usd("0.00000095"));
    assert_eq!(luna.cost(Service::Sync, &small), usd("0.0000019"));
    assert_eq!(luna.cost(Service::Flex, &small), usd("0.00000095"));
    assert_eq!(luna.price(Service::Batch, &small).unwrap().saved_nanos(), 950);
    assert_eq!(luna.price(Service::Sync, &small).unwrap().saved_nanos(), 0);
}

#[test]
fn cached_and_written_tokens_are_part_of_the_prompt() {
    let luna = openai("gpt-6-luna");
    let with_cache = usage(200_000, 100_000, 50_000, 0);
    // live: 50k x 0.1 + 100k x 0.01 + 50k x 0.125; half of each in a batch
    assert_eq!(luna.cost(Service::Sync, &with_cache), usd("0.01225"));
    assert_eq!(luna.cost(Service::Batch, &with_cache), usd("0.006125"));
    assert_eq!(luna.cost(Service::Flex, &with_cache), usd("0.006125"), "flex bills cache writes as batch does");
    assert_eq!(luna.cost(Service::Background8h, &with_cache), usd("0.00735"), "40 % below the live price");
    assert_eq!(luna.cost(Service::Background2h, &with_cache), usd("0.008575"), "30 % below it");
}

#[test]
fn older_models_have_no_cache_discount_in_a_batch() {
    let usage = usage(MILLION, MILLION, 0, 0);
    assert_eq!(openai("gpt-4.1").cost(Service::Sync, &usage), usd("0.5"));
    assert_eq!(openai("gpt-4.1").cost(Service::Batch, &usage), usd("1"));
    assert_eq!(openai("gpt-4.1").price(Service::Batch, &usage).unwrap().saved_nanos(), -500_000_000);
}

#[test]
fn writes_are_plain_input_where_the_provider_does_not_charge_for_them() {
    assert_eq!(openai("gpt-5.5").cost(Service::Sync, &usage(1000, 0, 1000, 0)), usd("0.005"));
}

#[test]
fn anthropics_writes_cost_by_how_long_they_are_kept_and_half_in_a_batch() {
    let haiku = PriceTable::builtin().find("anthropic", "anthropic", "claude-haiku-5-5").unwrap();
    // 10k plain x 0.1, 40k read x 0.01, 10k written for 5 minutes x 0.125, 20k for an hour x 0.2, 1k out x 0.5
    let usage = Usage {
        input: 80_000,
        cached: 40_000,
        cache_written: 30_000,
        cache_written_1h: 20_000,
        output: 1_000,
        reasoning: 0,
    };
    assert_eq!(haiku.cost(Service::Sync, &usage), usd("0.00715"));
    assert_eq!(haiku.cost(Service::Batch, &usage), usd("0.003575"));
    assert_eq!(haiku.price(Service::Batch, &usage).unwrap().saved_nanos(), 3_575_000);
}

#[test]
fn a_long_prompt_is_charged_wholly_at_the_higher_price() {
    let luna = openai("gpt-6-luna");
    assert_eq!(luna.cost(Service::Batch, &usage(272_000, 0, 0, 100)), usd("0.013625"));
    assert_eq!(luna.cost(Service::Batch, &usage(272_001, 0, 0, 100)), usd("0.0272376"));
    assert_eq!(luna.cost(Service::Flex, &usage(272_001, 0, 0, 100)), usd("0.0272376"));
    // 1.25 x the tier's own input price
    assert_eq!(luna.cost(Service::Sync, &usage(MILLION, 0, MILLION, 0)), usd("0.25"));
}

#[test]
fn a_tier_without_a_batch_price_has_none() {
    let gemini = PriceTable::builtin().find("gemini", "gemini", "gemini-pro-latest").unwrap();
    assert!(gemini.cost(Service::Batch, &usage(1000, 0, 0, 1)).is_some());
    assert_eq!(gemini.cost(Service::Batch, &usage(200_001, 0, 0, 1)), None);
}

#[test]
fn embeddings_have_input_only() {
    assert_eq!(openai("text-embedding-3-small").cost(Service::Batch, &usage(5, 0, 0, 0)), usd("0.00000005"));
}

#[test]
fn dated_versions_and_prefixes_are_resolved() {
    let luna = openai("gpt-6-luna");
    assert_eq!(openai("gpt-6-luna-2026-08-01"), luna);
    assert_eq!(openai("openai/gpt-6-luna"), luna);
    assert_eq!(openai("openai/gpt-6-luna-20260801"), luna);
    assert_eq!(openai("gpt-4o-2024-11-20"), openai("gpt-4o"));
    assert_eq!(openai("gpt-4o-2026-01-01"), openai("gpt-4o"), "newer than all listed: the alias");
}

#[test]
fn what_is_not_listed_has_no_price() {
    let table = PriceTable::builtin();
    for model in [
        "",
        "-",
        "gpt-99",
        "ft:gpt-4o-mini:acme::abc",
        "gpt-4o-2024-05-13", // older than the listed versions, and was dearer
        "gpt-6-luna-2026-8-1",
        "gpt-6-luna-mini",
        "groq/gpt-6-luna",
        "-2026-08-01",
    ] {
        assert!(table.find("openai", "openai", model).is_none(), "{model}");
    }
    assert!(table.find("groq", "openai", "gpt-6-luna").is_none(), "groq does not sell it");
    let groq = table.find("groq", "openai", "openai/gpt-oss-120b").unwrap();
    assert_eq!(groq.cost(Service::Batch, &usage(MILLION, 0, 0, 0)), usd("0.075"));
    assert_eq!(groq.cost(Service::Flex, &usage(1, 0, 0, 0)), None);
    assert_eq!(groq.cost(Service::Background8h, &usage(1, 0, 0, 0)), None, "OpenAI's alone");
}

#[test]
fn an_unknown_provider_name_falls_back_to_its_kind() {
    let table = PriceTable::builtin();
    assert_eq!(table.find("work-account", "openai", "gpt-6-luna"), Some(openai("gpt-6-luna")));
    assert!(table.find("work-account", "nobody", "gpt-6-luna").is_none());
}

const OWN: &str = r#"{"schema":1,"as_of":"2026-12-24","currency":"USD","unit":"per 1,000,000 tokens","models":[
    {"provider":"openai","model":"gpt-6-luna","input":1,"output":4,"batch_input":5e-1,"batch_output":2},
    {"provider":"local","model":"llama","input":0,"output":0}]}"#;

#[test]
fn an_own_list_goes_over_the_builtin_one() {
    let table = PriceTable::from_json(OWN.as_bytes()).unwrap().over(PriceTable::builtin());
    assert_eq!(table.as_of(), "2026-12-24");
    assert_eq!(table.len(), 235);
    let million = usage(MILLION, 0, 0, MILLION);
    let cost = |model| table.find("openai", "openai", model).unwrap().cost(Service::Batch, &million);
    assert_eq!(cost("gpt-6-luna"), usd("2.5"));
    assert_eq!(cost("gpt-6-sol"), usd("9.5"), "the price above 272,000 prompt tokens");
    assert_eq!(table.find("local", "openai", "llama").unwrap().cost(Service::Sync, &million), Some(Money::ZERO));
    assert!(table.find("local", "openai", "gpt-6-sol").is_none(), "a named provider has its own list only");
}

#[test]
fn a_bad_list_is_refused_with_its_cause() {
    let negative = OWN.replace("\"input\":1,", "\"input\":-1,");
    let error = PriceTable::from_json(negative.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("gpt-6-luna"), "{error}");
    for (from, to, cause) in [
        ("\"output\":4", "\"ouput\":4", "ouput"),
        ("\"model\":\"llama\"", "\"model\":\"m\",\"above_prompt_tokens\":{\"9\":{\"inputs\":1}}", "inputs"),
        (
            "\"model\":\"llama\"",
            "\"model\":\"m\",\"above_prompt_tokens\":{\"many\":{}}",
            "unusable number for model \"m\"",
        ),
        ("\"provider\":\"local\",\"model\":\"llama\"", "\"provider\":\"openai\",\"model\":\"gpt-6-luna\"", "twice"),
        ("2026-12-24", "Christmas", "YYYY-MM-DD"),
        ("\"model\":\"llama\",", "", "missing field `model` at line 3"),
    ] {
        let bad = OWN.replace(from, to);
        assert_ne!(bad, OWN);
        let error = PriceTable::from_json(bad.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(cause), "{to}: {error}");
    }
    let other_unit = OWN.replace("per 1,000,000", "per 1,000");
    assert!(matches!(PriceTable::from_json(other_unit.as_bytes()), Err(PriceError::Form)));
    assert!(matches!(PriceTable::from_json(b"{"), Err(PriceError::Json(_))));
}

#[test]
fn a_model_without_a_provider_is_found_where_it_is_listed() {
    let table = PriceTable::builtin();
    let sonnet = table.find("anthropic", "anthropic", "claude-sonnet-4-6");
    assert!(sonnet.is_some());
    assert_eq!(table.find_anywhere("claude-sonnet-4-6"), sonnet);
    assert_eq!(table.find_anywhere("anthropic/claude-sonnet-4-6"), sonnet);
    assert_eq!(table.find_anywhere("openai/gpt-5.4-mini-2026-03-17"), table.find_anywhere("gpt-5.4-mini"));
    for unknown in ["", "/", "openai/", "nobody/gpt-5.4", "gpt-of-tomorrow"] {
        assert_eq!(table.find_anywhere(unknown), None, "{unknown}");
    }
    let twice = br#"{"schema":1,"as_of":"2026-11-01","currency":"USD","unit":"per 1,000,000 tokens","models":[
        {"provider":"a","model":"m","input":1,"output":1},{"provider":"b","model":"m","input":2,"output":1}]}"#;
    assert_eq!(PriceTable::from_json(twice).unwrap().find_anywhere("m"), None);
}

fn listed(models: &[&str]) -> PriceTable {
    let rows: Vec<String> = (1..)
        .zip(models)
        .map(|(price, model)| format!(r#"{{"provider":"p","model":"{model}","input":{price},"output":1}}"#))
        .collect();
    let text = format!(
        r#"{{"schema":1,"as_of":"2026-01-01","currency":"USD","unit":"per 1,000,000 tokens","models":[{}]}}"#,
        rows.join(",")
    );
    PriceTable::from_json(text.as_bytes()).unwrap()
}

#[test]
fn a_version_has_its_aliass_price_unless_it_is_older_than_all_that_are_listed() {
    let table = listed(&["m", "m-2026-03-01", "other-2026-09-01"]);
    let found = |model| table.find("p", "p", model);
    let alias = found("m");
    assert!(alias.is_some() && found("m-2026-03-01") != alias);
    for version in ["m-2026-03-02", "m-20260302", "m-20260301"] {
        assert_eq!(found(version), alias, "{version}");
    }
    assert_eq!(found("m-2026-02-28"), None);
    for no_date in
        ["m-2026-1-01", "m-2026-01-1", "m-26-01-01", "m-+026-04-01", "m-+2260401", "m-2026040x", "m-2026-0x-01"]
    {
        assert_eq!(found(no_date), None, "{no_date}");
    }
    assert_eq!(["m-2026-03-01", "m-20260301", "m-x", "m"].map(undated), ["m", "m", "m-x", "m"]);
}

#[test]
fn a_list_is_empty_when_no_model_has_a_price() {
    assert!(PriceTable::default().is_empty() && listed(&[]).is_empty());
    assert!(!listed(&["m"]).is_empty() && !PriceTable::builtin().is_empty());
}

#[test]
fn each_part_of_a_lists_form_counts() {
    let good = r#"{"schema":1,"as_of":"2026-01-01","currency":"USD","unit":"per 1,000,000 tokens","models":[]}"#;
    assert!(PriceTable::from_json(good.as_bytes()).is_ok());
    for (part, wrong) in [
        ("\"schema\":1", "\"schema\":2"),
        ("USD", "EUR"),
        ("1,000,000", "1,000"),
        ("2026-01-01", "20260101"),
        ("-01-01", "-13-01"),
    ] {
        let list = good.replace(part, wrong);
        assert!(matches!(PriceTable::from_json(list.as_bytes()), Err(PriceError::Form)), "{list}");
    }
}

#[test]
fn only_openai_sells_flex_at_batch_rates_above_a_threshold_that_names_none() {
    let tier = |provider: &str, base: &str, above: &str| {
        let text = format!(
            r#"{{"schema":1,"as_of":"2026-01-01","currency":"USD","unit":"per 1,000,000 tokens","models":[
            {{"provider":"{provider}","model":"m","input":4,"output":4{base},
              "above_prompt_tokens":{{"10":{{"input":8,"output":8,"batch_input":4,"batch_output":4{above}}}}}}}]}}"#
        );
        let table = PriceTable::from_json(text.as_bytes()).unwrap();
        let long = Usage { input: 1_000, ..Usage::default() };
        table.find(provider, provider, "m").unwrap().cost(Service::Flex, &long).map(Money::picos)
    };
    let flex = r#","flex_input":2,"flex_output":2"#;
    assert_eq!(tier("openai", flex, ""), Some(4_000_000_000));
    assert_eq!(tier("openai", flex, r#","flex_input":5,"flex_output":5"#), Some(5_000_000_000), "its own price first");
    assert_eq!((tier("openai", "", ""), tier("other", flex, "")), (None, None));
}
