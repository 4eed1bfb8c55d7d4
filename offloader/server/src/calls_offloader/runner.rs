//! Runners: names of images, as the plugin puts them together. Here they only say what is wanted; nothing is ever pulled.

/// What a job makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file of the call.
    Recording,
    /// Its words.
    Transcribing,
}

impl Kind {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Recording, Self::Transcribing];

    /// Its name in the contract.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Transcribing => "transcribing",
        }
    }

    /// The kind of that name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Image and oldest version that does it.
    fn image(self) -> (&'static str, [u32; 3]) {
        match self {
            Self::Recording => ("calls-recorder", [0, 6, 0]),
            Self::Transcribing => ("calls-transcriber", [0, 1, 0]),
        }
    }
}

/// What a runner is for: `<registry>/calls-recorder:v0.8.13`, perhaps with `-dev1` behind.
pub(super) fn kind_of(runner: &str, registry: &str) -> Result<Kind, String> {
    let unfit = || {
        format!(
            "failed to validate runner {runner:?}: it should be {registry}/calls-recorder or {registry}/calls-transcriber, with a version"
        )
    };
    let image = runner.strip_prefix(registry).and_then(|rest| rest.strip_prefix('/')).ok_or_else(unfit)?;
    let (name, version) = image.split_once(":v").ok_or_else(unfit)?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.image().0 == name).ok_or_else(unfit)?;
    let version = numbers(version).ok_or_else(unfit)?;
    let (_, oldest) = kind.image();
    if version < oldest {
        let [major, minor, patch] = oldest;
        return Err(format!("failed to validate runner {runner:?}: the oldest version is v{major}.{minor}.{patch}"));
    }
    Ok(kind)
}

/// `MAJOR.MINOR.PATCH`, perhaps with `-devN`.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let (core, dev) = version.split_once("-dev").map_or((version, None), |(core, dev)| (core, Some(dev)));
    if dev.is_some_and(|dev| number(dev).is_none()) {
        return None;
    }
    let mut parts = core.split('.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|digit| digit.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_are_those_of_the_plugin_in_their_registry() {
        for (runner, kind) in [
            ("mattermost/calls-recorder:v0.8.13", Kind::Recording),
            ("mattermost/calls-recorder:v0.6.0", Kind::Recording),
            ("mattermost/calls-transcriber:v0.7.2", Kind::Transcribing),
            ("mattermost/calls-transcriber:v1.0.0-dev1", Kind::Transcribing),
        ] {
            assert_eq!(kind_of(runner, "mattermost"), Ok(kind), "{runner}");
        }
        for runner in [
            "",
            "mattermost/calls-recorder",
            "mattermost/calls-recorder:latest",
            "mattermost/calls-recorder:0.8.13",
            "mattermost/calls-recorder:v0.8",
            "mattermost/calls-recorder:v0.8.13.1",
            "mattermost/calls-recorder:v0.8.13-rc1",
            "mattermost/calls-recorder:v0.8.13-dev",
            "mattermost/calls-recorder:v+0.8.13",
            "mattermost/calls-recorder:v0.8.13\n",
            "mattermost/calls-recorder:v0.5.9",
            "mattermost/calls-transcriber:v0.0.9",
            "mattermost/calls-other:v1.0.0",
            "evil/calls-recorder:v0.8.13",
            "evil/mattermost/calls-recorder:v0.8.13",
            " mattermost/calls-recorder:v0.8.13",
        ] {
            assert!(kind_of(runner, "mattermost").is_err(), "{runner}");
        }
    }

    /// The original puts the registry into a pattern as it is: a dot there is any letter.
    #[test]
    fn a_registry_is_taken_literally() {
        assert_eq!(kind_of("registry.example.org:5000/mm/calls-recorder:v0.8.13", "registry.example.org:5000/mm"), Ok(Kind::Recording));
        assert!(kind_of("registryXexampleXorg/calls-recorder:v0.8.13", "registry.example.org").is_err());
        assert!(kind_of("anything/calls-recorder:v0.8.13", ".*").is_err());
    }
}
