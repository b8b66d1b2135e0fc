//! What stands behind the `?` of an admin route, and pages of a list.
//!
//! An unknown or repeated key is a mistake of the caller and refused, so that a misspelt filter never looks like an
//! unfiltered list. Called by the route handlers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::wire::api_error::ApiError;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// Keys and values, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `query`; only `known` keys may be in it.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(ApiError::invalid_request("The query string is not valid percent-encoded UTF-8."));
            };
            if !known.contains(&key.as_str()) {
                return Err(unknown(&key, known));
            }
            if values.insert(key.clone(), value).is_some() {
                return Err(ApiError::invalid_request(format!("{key:?} is given twice.")).about(key));
            }
        }
        Ok(Self(values))
    }

    /// The value of `key`; an empty one counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of `key` as a `T`.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        self.get(key)
            .map(|value| {
                value
                    .parse()
                    .map_err(|error: T::Err| ApiError::invalid_request(format!("{key}={value}: {error}.")).about(key))
            })
            .transpose()
    }

    /// How many entries a page holds: `limit`, 100 if it is not given.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let limit = self.parsed::<usize>("limit")?.unwrap_or(DEFAULT_LIMIT);
        if (1..=MAX_LIMIT).contains(&limit) {
            return Ok(limit);
        }
        Err(ApiError::invalid_request(format!("limit={limit}: must be between 1 and {MAX_LIMIT}.")).about("limit"))
    }
}

fn unknown(key: &str, known: &[&str]) -> ApiError {
    let hint = if known.is_empty() {
        "this route takes none".to_owned()
    } else {
        format!("this route takes {}", known.join(", "))
    };
    ApiError::invalid_request(format!("{key:?} is not a parameter: {hint}.")).about(key)
}

fn decode(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The list envelope of the contract, section 10.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    object: &'static str,
    data: Vec<T>,
    has_more: bool,
    next: Option<String>,
}

impl<T> List<T> {
    /// A page of at most `limit` entries out of `found`, for which one more than that was asked for.
    /// `cursor` names an entry, for `after`.
    pub(super) fn page(mut found: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(cursor);
        Self { object: "list", data: found, has_more, next }
    }

    /// The same page with each entry shown as `show` does.
    pub(super) fn map<U>(self, show: impl FnMut(T) -> U) -> List<U> {
        List {
            object: self.object,
            data: self.data.into_iter().map(show).collect(),
            has_more: self.has_more,
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_unknown_keys_refused() {
        let query = Query::parse(Some("tag=a%2Db+c&state=&limit=5"), &["tag", "state", "limit"]).unwrap();
        assert_eq!((query.get("tag"), query.get("state"), query.limit()), (Some("a-b c"), None, Ok(5)));
        let refused = Query::parse(Some("stat=queued"), &["state", "tag"]).unwrap_err();
        assert!(refused.message.contains("\"stat\"") && refused.message.contains("state, tag"), "{refused:?}");
        for bad in ["tag=%f", "tag=%zz", "tag=%ff", "tag=a&tag=b"] {
            assert_eq!(Query::parse(Some(bad), &["tag"]).unwrap_err().code, "invalid_request", "{bad}");
        }
    }

    #[test]
    fn a_limit_is_a_number_within_bounds() {
        for bad in ["limit=0", "limit=1001", "limit=many"] {
            assert!(Query::parse(Some(bad), &["limit"]).unwrap().limit().is_err(), "{bad}");
        }
        assert_eq!(Query::parse(None, &[]).unwrap().limit(), Ok(100));
    }

    #[test]
    fn a_page_knows_whether_there_is_another() {
        let full = List::page(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((full.data, full.has_more, full.next.as_deref()), (vec![1, 2], true, Some("2")));
        let last = List::page(vec![1, 2], 2, ToString::to_string);
        assert_eq!((last.data, last.has_more, last.next), (vec![1, 2], false, None));
    }
}
