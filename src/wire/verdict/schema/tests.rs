//! What is found, and above all what is not: a flight must never be grounded for a keyword that is not known here.

use serde_json::json;

use super::*;

#[test]
fn what_does_not_fit_is_found_and_named() {
    let schema = json!({
        "type": "object",
        "properties": {
            "label": {"enum": ["spam", "ham"]},
            "why": {"type": ["string", "null"]},
            "stars": {"type": "integer"},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        },
        "required": ["label"],
        "additionalProperties": false,
        "$defs": {"tag": {"type": "string"}},
    });
    for (value, place) in [
        (json!({"label": "ham", "why": null, "stars": 3.0, "tags": ["a"], "next": {"label": "spam"}}), None),
        (json!({"why": "no label"}), Some("at the top")),
        (json!({"label": "eggs"}), Some("at /label")),
        (json!({"label": "ham", "more": 1}), Some("at the top")),
        (json!({"label": "ham", "stars": 1.5}), Some("at /stars")),
        (json!({"label": "ham", "tags": ["a", 7]}), Some("at /tags/*")),
        (json!({"label": "ham", "next": {"why": "x"}}), Some("at /next")),
        (json!([]), Some("at the top")),
    ] {
        assert_eq!(misfit(&schema, &value).as_deref(), place, "{value}");
    }
}

/// Each keyword that OpenAI's strict mode takes, with a value that fits and one that does not.
#[test]
fn the_keywords_of_strict_mode() {
    for (schema, fits, misfits) in [
        (json!({"type": "string"}), json!("x"), Some(json!(1))),
        (json!({"type": "number"}), json!(1), Some(json!("1"))),
        (json!({"type": "boolean"}), json!(false), Some(json!(0))),
        (json!({"type": "integer"}), json!(2.0), Some(json!(2.5))),
        (json!({"type": "object"}), json!({}), Some(json!([]))),
        (json!({"type": "array"}), json!([]), Some(json!({}))),
        (json!({"type": ["string", "null"]}), json!(null), Some(json!(1))),
        (json!({"enum": ["a", 1, null]}), json!(1.0), Some(json!("b"))),
        (json!({"const": {"a": [1]}}), json!({"a": [1.0]}), Some(json!({"a": [1, 1]}))),
        (json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), json!(null), Some(json!(1))),
        (json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}), json!(null), Some(json!(1))),
        (json!({"properties": {"a": {"type": "null"}}}), json!({"a": null, "b": 1}), Some(json!({"a": 1}))),
        (json!({"required": ["a"]}), json!({"a": 1}), Some(json!({"b": 1}))),
        (json!({"properties": {"a": {}}, "additionalProperties": false}), json!({"a": 1}), Some(json!({"b": 1}))),
        (json!({"additionalProperties": {"type": "null"}}), json!({"a": null}), Some(json!({"a": 1}))),
        (json!({"items": {"type": "null"}}), json!([null]), Some(json!([null, 1]))),
        (json!({"items": {"type": "null"}}), json!([]), Some(json!([1, null]))),
        (json!({"minItems": 1}), json!([1]), Some(json!([]))),
        (json!({"maxItems": 1}), json!([1]), Some(json!([1, 2]))),
        (json!({"minimum": 2}), json!(2), Some(json!(1.9))),
        (json!({"maximum": 2}), json!(2.0), Some(json!(3))),
        (json!({"exclusiveMinimum": 2}), json!(2.1), Some(json!(2))),
        (json!({"exclusiveMaximum": 2}), json!(1), Some(json!(2.0))),
        (json!({"multipleOf": 2}), json!(-4), Some(json!(3))),
        (json!({"multipleOf": 0.1}), json!(0.3), Some(json!(0.25))),
        (json!({"multipleOf": 0.01}), json!(123_456.78), Some(json!(0.005))),
        (json!({"multipleOf": 3}), json!(1e300), Some(json!(1.5))),
        (json!({"pattern": "^x$"}), json!("x"), Some(json!("y"))),
        (json!({"format": "email"}), json!("a@b"), Some(json!("nobody"))),
        // Beside those: what is written most.
        (json!({"minLength": 2}), json!("éé"), Some(json!("é"))),
        (json!({"maxLength": 1}), json!("é"), Some(json!("ab"))),
        (json!({"oneOf": [{"type": "string"}, {"type": "null"}]}), json!(null), Some(json!(1))),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!(1), Some(json!(3))),
    ] {
        assert_eq!(misfit(&schema, &fits), None, "{schema}");
        let misfits = misfits.unwrap();
        assert!(misfit(&schema, &misfits).is_some(), "{schema}: {misfits}");
    }
}

#[test]
fn what_is_not_known_or_written_otherwise_fits() {
    for (schema, value) in [
        // Keywords of the drafts that are not checked here, none of which the value fits.
        (json!({"oneOf": [{}, {}]}), json!(1)),
        (json!({"not": {}}), json!(1)),
        (json!({"if": {}, "then": {"type": "string"}}), json!(1)),
        (json!({"uniqueItems": true}), json!([1, 1])),
        (json!({"contains": {"type": "string"}}), json!([1])),
        (json!({"prefixItems": [{"type": "string"}]}), json!([1])),
        (json!({"minProperties": 2}), json!({})),
        (json!({"propertyNames": {"maxLength": 1}}), json!({"abc": 1})),
        (json!({"patternProperties": {"^a": {"type": "string"}}}), json!({"a": 1})),
        (json!({"dependentRequired": {"a": ["b"]}}), json!({"a": 1})),
        (json!({"unevaluatedProperties": false}), json!({"a": 1})),
        (json!({"unevaluatedItems": false}), json!([1])),
        (json!({"contentMediaType": "application/json"}), json!("no json")),
        (json!({"x-of-somebody": {"type": "string"}}), json!(1)),
        // Known ones that others change.
        (json!({"patternProperties": {"^a": {}}, "additionalProperties": false}), json!({"a": 1})),
        (json!({"prefixItems": [{}], "items": {"type": "string"}}), json!([1, "x"])),
        (json!({"type": "string", "nullable": true}), json!(null)),
        (json!({"enum": ["a"], "nullable": true}), json!(null)),
        (json!({"minLength": 9, "pattern": "x", "format": "date", "multipleOf": 7}), json!([])),
        // Known ones in another draft's form, or in none.
        (json!({"type": "date"}), json!(1)),
        (json!({"type": []}), json!(1)),
        (json!({"type": 7}), json!(1)),
        (json!({"anyOf": []}), json!(1)),
        (json!({"enum": "a"}), json!(1)),
        (json!({"required": true}), json!({})),
        (json!({"items": [{"type": "string"}]}), json!([1])),
        (json!({"items": false}), json!([1])),
        (json!({"minimum": 1, "exclusiveMinimum": true}), json!(1)),
        (json!({"minItems": "2"}), json!([])),
        (json!({"pattern": 7, "format": 7, "minLength": "9", "maxLength": -1}), json!("x")),
        (json!({"multipleOf": 0}), json!(1)),
        (json!({"multipleOf": "2"}), json!(1)),
        (json!({"allOf": [], "oneOf": 7}), json!(1)),
        (json!({"$ref": "#/$defs/nowhere"}), json!(1)),
        (json!({"$ref": "https://example.com/schema"}), json!(1)),
        (json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}), json!(1)),
        (json!({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "string"}}}), json!(1)),
        (json!({"properties": {"a": true}}), json!({"a": 1})),
        (json!(true), json!(1)),
        (json!("schema"), json!(1)),
    ] {
        assert_eq!(misfit(&schema, &value), None, "{schema}: {value}");
    }
}

#[test]
fn values_are_the_same_in_all_of_their_parts() {
    for (wanted, other) in [
        (json!([1, 2]), json!([1.0, 3])),
        (json!([1]), json!([1, 1])),
        (json!({"a": 1, "b": 2}), json!({"a": 1.0, "b": 3})),
        (json!({"a": 1}), json!({"a": 1, "b": 1})),
        (json!({"a": 1}), json!({"b": 1})),
    ] {
        let only = json!({"const": wanted});
        assert!(misfit(&only, &wanted).is_none() && misfit(&only, &other).is_some(), "{wanted} {other}");
    }
    let nullable = json!({"type": "string", "nullable": true});
    assert_eq!(misfit(&nullable, &json!(1)).as_deref(), Some("at the top"), "not null, and no text either");
}

#[test]
fn multiples_are_told_as_far_as_decimals_go() {
    let fits = |step: f64, value: f64| misfit(&json!({"multipleOf": step}), &json!(value)).is_none();
    assert!(fits(0.01, 1_234_567.89) && fits(0.01, 9_876_543.21) && fits(0.1, 4_503_599_627.3) && fits(0.7, 0.0));
    assert!(!fits(0.01, 1_234_567.895) && !fits(0.7, 0.35));
    assert!(fits(0.0, 1.5) && fits(-0.5, 0.7), "no step, no rule");
}

#[test]
fn patterns_are_work_too() {
    let many = json!((0..600).map(|at| json!(if at == 599 { "x" } else { "y" })).collect::<Vec<_>>());
    assert_eq!(misfit(&json!({"items": {"pattern": "^y"}}), &many), None, "it takes too long to tell");
    let fewer = json!((0..400).map(|at| json!(if at == 399 { "x" } else { "y" })).collect::<Vec<_>>());
    assert_eq!(misfit(&json!({"items": {"pattern": "^y"}}), &fewer).as_deref(), Some("at /*"));
}

#[test]
fn circles_end_soon_and_fit() {
    assert_eq!(misfit(&json!({"$ref": "#"}), &json!(1)), None);
    let branching = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}], "required": ["x"]});
    assert_eq!(misfit(&json!({"properties": {"a": branching}, "anyOf": [branching]}), &json!({"a": {}})), None);
    let doubled = json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "required": ["x"]});
    assert_eq!(misfit(&doubled, &json!({})), None, "it takes too long to tell");
    let deep = (0..80).fold(json!(null), |inner, _| json!({"next": inner}));
    let list = json!({"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}});
    assert_eq!(misfit(&list, &deep), None);
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|one| json!(one)),
            (-3..3_i32).prop_map(|one| json!(one)),
            "[ab]{0,2}".prop_map(|one| json!(one)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// A schema that says exactly what a value is.
    fn exactly(value: &Value) -> Value {
        match value {
            Value::Object(members) => json!({
                "type": "object",
                "properties": members.iter().map(|(name, one)| (name.clone(), exactly(one))).collect::<Map<_, _>>(),
                "required": members.keys().collect::<Vec<_>>(),
                "additionalProperties": false,
            }),
            Value::Array(items) => json!({
                "type": "array",
                "items": {"anyOf": items.iter().map(exactly).collect::<Vec<_>>()},
                "minItems": items.len(),
                "maxItems": items.len(),
            }),
            one @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => json!({"const": one}),
        }
    }

    proptest! {
        #[test]
        fn a_value_fits_its_own_schema(one in value()) {
            prop_assert_eq!(misfit(&exactly(&one), &one), None);
        }

        #[test]
        fn a_keyword_that_nobody_knows_changes_nothing(one in value(), other in value(), said in value()) {
            let schema = exactly(&one);
            let mut more = schema.clone();
            more["x-more"] = said;
            prop_assert_eq!(misfit(&schema, &other), misfit(&more, &other));
        }

        #[test]
        fn any_schema_ends(schema in value(), one in value()) {
            let _found = misfit(&schema, &one);
        }
    }
}
