//! Where the runbooks and the dashboards are: the source names them relative, a reader elsewhere needs addresses.

use std::fmt;

/// An `http` or `https` address without a query and without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseUrl(String);

impl BaseUrl {
    /// Checks an address from the command line.
    ///
    /// # Errors
    /// What an address has to be, if it is not that.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let problem = || "an address is like https://example.com/path, without a query".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| problem())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
        // A `$` would be a variable to those who read the rendered file.
        if !known || uri.query().is_some() || text.contains(['$', '{', '#']) {
            return Err(problem());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What relative links become absolute by; without it they stay as they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Where the repository's files are served, for `alerts/runbooks/...`.
    pub(crate) runbook_base: Option<BaseUrl>,
    /// Where Grafana is, for `/d/...`.
    pub(crate) grafana_url: Option<BaseUrl>,
}

impl Links {
    pub(crate) fn runbook(&self, relative: &str) -> String {
        joined(self.runbook_base.as_ref(), relative)
    }

    pub(crate) fn dashboard(&self, relative: &str) -> String {
        joined(self.grafana_url.as_ref(), relative)
    }
}

fn joined(base: Option<&BaseUrl>, relative: &str) -> String {
    match base {
        None => relative.to_owned(),
        Some(base) => format!("{base}/{}", relative.trim_start_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_absolute_once_and_stay_relative_without_a_base() {
        let base = |text| Some(BaseUrl::parse(text).expect("an address"));
        let links =
            Links { runbook_base: base("https://git.example/x/"), grafana_url: base("http://g:3000") };
        assert_eq!(links.runbook("alerts/runbooks/A.md"), "https://git.example/x/alerts/runbooks/A.md");
        assert_eq!(links.dashboard("/d/x?viewPanel=2"), "http://g:3000/d/x?viewPanel=2");
        assert_eq!(Links::default().dashboard("/d/x"), "/d/x");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "x", "/d", "ftp://a", "https://", "https://a?b=c", "https://a/$B", "https://a b"] {
            BaseUrl::parse(bad).expect_err(bad);
        }
    }
}
