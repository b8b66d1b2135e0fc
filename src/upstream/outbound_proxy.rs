//! The way out through a company proxy: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, read once at start.
//!
//! `https` upstreams go through a `CONNECT` tunnel, so the proxy sees only the host name; `http` upstreams are asked
//! for in absolute form, with `Proxy-Authorization` where the proxy's URL has a user. Called by `upstream::connect`
//! and `upstream::client`.

use std::sync::Arc;

use http::header::PROXY_AUTHORIZATION;
use http::{Request, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// Which calls go through which proxy.
#[derive(Clone, Debug)]
pub struct OutboundProxy {
    /// None: no proxy at all, nothing is matched.
    matcher: Option<Arc<Matcher>>,
}

impl OutboundProxy {
    /// From the environment, with curl's reading of the variables.
    pub fn from_env() -> Self {
        Self::of(Matcher::from_env())
    }

    /// No proxy, whatever the environment says.
    pub const fn direct() -> Self {
        Self { matcher: None }
    }

    /// Given URLs (`http://user:password@host:port`) for `http` and `https` upstreams, and the hosts that are
    /// reached without; an empty text is none.
    pub fn explicit(http: &str, https: &str, except: &str) -> Self {
        Self::of(Matcher::builder().http(http.to_owned()).https(https.to_owned()).no(except.to_owned()).build())
    }

    fn of(matcher: Matcher) -> Self {
        // `Matcher` does not say whether it is empty, so it is asked about a host that no exception names.
        let probe = [Uri::from_static("http://nightbus.invalid/"), Uri::from_static("https://nightbus.invalid/")];
        let used = probe.iter().any(|uri| matcher.intercept(uri).is_some());
        Self { matcher: used.then(|| Arc::new(matcher)) }
    }

    /// The proxy for `destination`, if it has one.
    pub(super) fn intercept(&self, destination: &Uri) -> Option<Intercept> {
        self.matcher.as_ref()?.intercept(destination)
    }

    /// Adds the proxy's credential to a request that the proxy itself reads, that is one to an `http` upstream.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) {
        if self.matcher.is_none() || request.uri().scheme() != Some(&http::uri::Scheme::HTTP) {
            return;
        }
        if let Some(credential) = self.intercept(request.uri()).and_then(|proxy| proxy.basic_auth().cloned()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credential);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_reached_directly() {
        let proxy = OutboundProxy::explicit("", "http://127.0.0.1:3128", "internal.example, 10.0.0.0/8");
        let goes_through = |uri: &str| proxy.intercept(&uri.parse().unwrap()).is_some();
        assert!(goes_through("https://api.openai.com/v1"));
        assert!(!goes_through("https://gateway.internal.example/v1"));
        assert!(!goes_through("https://10.1.2.3/v1"));
        assert!(!goes_through("http://api.openai.com/v1"));
    }

    #[test]
    fn the_proxys_credential_goes_only_to_the_proxy() {
        let proxy = OutboundProxy::explicit("http://me:secret@127.0.0.1:1", "http://me:secret@127.0.0.1:1", "");
        let authorized = |uri: &str| {
            let mut request = Request::get(uri).body(()).unwrap();
            proxy.authorize(&mut request);
            request.headers().contains_key(PROXY_AUTHORIZATION)
        };
        assert!(authorized("http://gateway/v1"));
        assert!(!authorized("https://api.openai.com/v1"));
    }
}
