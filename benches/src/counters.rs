//! What our daemon counts, read from its metrics.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

const PATIENCE: Duration = Duration::from_secs(5);

/// All counters of one moment, by how they are written.
pub(crate) struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// One request needs no HTTP client.
    pub(crate) fn read(http: SocketAddr) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&http, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {http}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer that ends early")?;
        anyhow::ensure!(head.split(' ').nth(1) == Some("200"), "rtcd tells no metrics: {head}");
        Ok(Self::parse(body))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| line.rsplit_once(' '))
                .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
                .collect(),
        )
    }

    /// Of all shards' cores together.
    pub(crate) fn core(&self, name: &str) -> anyhow::Result<f64> {
        let key = format!("conclave_rtcd_core_total{{name=\"{name}\"}}");
        self.0.get(&key).copied().with_context(|| format!("rtcd does not count {name}"))
    }

    /// Of each shard.
    pub(crate) fn by_shard(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        let key = |shard: usize| format!("conclave_rtcd_shard_total{{shard=\"{shard}\",name=\"{name}\"}}");
        let values: Vec<f64> = (0..).map_while(|shard| self.0.get(&key(shard)).copied()).collect();
        anyhow::ensure!(!values.is_empty(), "rtcd does not count {name} by shard");
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name_and_shard() -> anyhow::Result<()> {
        let counters = Counters::parse(
            "# HELP conclave_rtcd_core_total Counters.\nconclave_rtcd_core_total{name=\"packets_received\"} 12\n\
             conclave_rtcd_shard_total{shard=\"0\",name=\"datagrams_out\"} 7\nconclave_rtcd_shard_total{shard=\"1\",name=\"datagrams_out\"} 8\n\
             conclave_rtcd_shard_total{shard=\"1\",name=\"sends\"} 3\n",
        );
        assert_eq!(counters.core("packets_received")?.to_string(), "12");
        assert!(counters.core("packets_sent").is_err());
        assert_eq!(counters.by_shard("datagrams_out")?.len(), 2);
        assert!(counters.by_shard("datagrams_in").is_err_and(|error| error.to_string().contains("datagrams_in")));
        Ok(())
    }
}
