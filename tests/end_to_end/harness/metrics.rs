//! Prometheus text, as `/metrics` gives it.

use std::net::SocketAddr;

use crate::harness::http::request;

/// The samples of one scrape.
#[derive(Clone, Default)]
pub(crate) struct Metrics {
    samples: Vec<(String, f64)>,
}

impl Metrics {
    /// Asks a program; nothing when it does not answer.
    pub(crate) fn scrape(address: SocketAddr) -> Option<Metrics> {
        let response =
            request(address, "GET", "/metrics", &[], b"").ok().filter(|response| response.status == 200)?;
        Some(Metrics::parse(&response.text()))
    }

    pub(crate) fn parse(text: &str) -> Metrics {
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            })
            .collect();
        Metrics { samples }
    }

    /// The sum of all series of this name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| {
            series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
        };
        self.samples.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    /// Whether there is any series of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(series, _)| series.split('{').next() == Some(name))
    }
}
