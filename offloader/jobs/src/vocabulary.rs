//! Words and names that a call is likely to hold, for the recogniser: by the site's setting, and with a job.

use serde::{Deserialize, Serialize};

/// Most bytes of one vocabulary. A recogniser takes some 220 pieces of words, which is 800 letters of English; what is beyond that it says
/// and leaves out.
pub const VOCABULARY_BYTES_MAX: usize = 2_048;
/// Most bytes of one word or name.
const ENTRY_BYTES_MAX: usize = 100;

/// Words and names, in the order of their importance. Written with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Vocabulary(Vec<String>);

/// It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VocabularyError {
    /// Longer than [`VOCABULARY_BYTES_MAX`].
    #[error("a vocabulary has at most {VOCABULARY_BYTES_MAX} bytes, this one has {0}: leave out what is rarely said")]
    Long(usize),
    /// A line break, a NUL.
    #[error("a vocabulary is words and names with commas between them, without line breaks or other control characters")]
    Control,
    /// One of them is a text.
    #[error("{0:?}… is no word or name: at most {ENTRY_BYTES_MAX} bytes, with commas between them")]
    Entry(String),
}

impl Vocabulary {
    /// Nothing is likelier than anything else.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its words and names.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// This one's, and then the other's that are not among them.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        for entry in &other.0 {
            if !self.0.contains(entry) {
                self.0.push(entry.clone());
            }
        }
        self
    }
}

impl std::str::FromStr for Vocabulary {
    type Err = VocabularyError;

    fn from_str(text: &str) -> Result<Self, VocabularyError> {
        if text.len() > VOCABULARY_BYTES_MAX {
            return Err(VocabularyError::Long(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(VocabularyError::Control);
        }
        let mut vocabulary = Self::default();
        for entry in text.split([',', ';']) {
            let entry = entry.split_whitespace().collect::<Vec<_>>().join(" ");
            if entry.len() > ENTRY_BYTES_MAX {
                return Err(VocabularyError::Entry(entry.chars().take(20).collect()));
            }
            // What holds no letter cannot be said.
            if entry.chars().any(char::is_alphanumeric) && !vocabulary.0.contains(&entry) {
                vocabulary.0.push(entry);
            }
        }
        Ok(vocabulary)
    }
}

impl TryFrom<String> for Vocabulary {
    type Error = VocabularyError;

    fn try_from(text: String) -> Result<Self, VocabularyError> {
        text.parse()
    }
}

impl From<Vocabulary> for String {
    fn from(vocabulary: Vocabulary) -> Self {
        vocabulary.0.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names_have_commas_between_them_and_bounds() {
        let both: Vocabulary = " Siobhan  Ní Dhuinn,Kubernetes; Grafana,, Kubernetes , …,".parse().unwrap();
        assert_eq!(both.entries().collect::<Vec<_>>(), ["Siobhan Ní Dhuinn", "Kubernetes", "Grafana"]);
        assert_eq!(serde_json::to_string(&both).unwrap(), "\"Siobhan Ní Dhuinn, Kubernetes, Grafana\"");
        assert_eq!(serde_json::from_str::<Vocabulary>("\"Siobhan Ní Dhuinn, Kubernetes, Grafana\"").unwrap(), both);
        assert!("".parse::<Vocabulary>().unwrap().is_empty());
        let more: Vocabulary = "Okafor, Grafana".parse().unwrap();
        assert_eq!(more.and(&both).entries().collect::<Vec<_>>(), ["Okafor", "Grafana", "Siobhan Ní Dhuinn", "Kubernetes"]);
        assert_eq!("a,".repeat(1_025).parse::<Vocabulary>(), Err(VocabularyError::Long(2_050)));
        assert_eq!("Okafor\nGrafana".parse::<Vocabulary>(), Err(VocabularyError::Control));
        assert!(serde_json::from_str::<Vocabulary>("\"Okafor\\u0000\"").is_err());
        assert!(matches!("name ".repeat(30).parse::<Vocabulary>(), Err(VocabularyError::Entry(_))));
    }
}
