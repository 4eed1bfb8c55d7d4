//! Everything that was measured, as one file: runs of different days or parts can be put together.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::report::{self, Window};
use crate::scenario;
use crate::trials::{self, Sample};

/// How something was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Setting {
    pub(crate) date: String,
    pub(crate) revision: String,
    pub(crate) machine: String,
    /// When the bench began.
    pub(crate) load: String,
    pub(crate) versions: Vec<String>,
    /// What was measured so: names of scenarios and trials.
    #[serde(default)]
    pub(crate) measured: Vec<String>,
    pub(crate) seconds: u64,
    pub(crate) warmup: u64,
    pub(crate) seed: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Results {
    pub(crate) settings: Vec<Setting>,
    pub(crate) windows: Vec<Window>,
    pub(crate) samples: Vec<Sample>,
}

impl Results {
    /// Reads files that [`Self::write`] made, as one.
    pub(crate) fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for file in files {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            all.add(serde_json::from_str(&text).with_context(|| format!("{} is no file of --out", file.display()))?);
        }
        Ok(all)
    }

    /// Adds what was measured elsewhere; its runs are others.
    fn add(&mut self, mut other: Self) {
        let runs = self.windows.iter().map(|window| window.run).chain(self.samples.iter().map(|sample| sample.run)).max();
        let first = runs.map_or(0, |last| last + 1);
        for run in other.windows.iter_mut().map(|window| &mut window.run).chain(other.samples.iter_mut().map(|sample| &mut sample.run)) {
            *run += first;
        }
        self.settings.append(&mut other.settings);
        self.windows.append(&mut other.windows);
        self.samples.append(&mut other.samples);
    }

    /// Writes all as JSON, and the windows and the other figures beside it (CSV). Called as it grows: a long run that ends early has something.
    pub(crate) fn write(&self, out: &Path) -> anyhow::Result<()> {
        std::fs::write(out, serde_json::to_string_pretty(self)?)?;
        std::fs::write(out.with_extension("csv"), report::csv(&self.windows))?;
        std::fs::write(out.with_extension("figures.csv"), trials::csv(&self.samples))?;
        Ok(())
    }

    /// The scenarios that were measured.
    pub(crate) fn costs(&self) -> Vec<report::Summary> {
        let measured = |scenario: &scenario::Scenario| self.windows.iter().any(|window| window.scenario == scenario.name);
        scenario::ALL.iter().filter(|scenario| measured(scenario)).map(|scenario| report::summarise(scenario, &self.windows)).collect()
    }

    /// The other tables that were made.
    pub(crate) fn trials(&self) -> Vec<trials::Summary> {
        let measured = |trial: &trials::Trial| self.samples.iter().any(|sample| sample.trial == trial.name);
        trials::all().into_iter().filter(measured).map(|trial| trials::Summary::of(trial, &self.samples)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_run_by_run() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let sample = |run| Sample { trial: "idle".into(), subject: "conclave".into(), run, figures: vec![Some(1.0), None] };
        let part = Results { samples: vec![sample(0), sample(1)], ..Results::default() };
        let files = [folder.path().join("a.json"), folder.path().join("b.json")];
        for file in &files {
            part.write(file)?;
        }
        let all = Results::read(&files)?;
        assert_eq!(all.samples.iter().map(|sample| sample.run).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(all.trials().len(), 1);
        assert!(Results::read(&[folder.path().join("a.csv")]).is_err_and(|error| error.to_string().contains("no file of --out")));
        Ok(())
    }
}
