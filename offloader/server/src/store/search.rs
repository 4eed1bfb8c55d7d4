//! Full-text search in transcripts.
//!
//! A query is words that must all occur in one sentence; words in double quotes must follow each other;
//! the last word may be unfinished. What a person types is never given to the database as its own syntax.

use sqlx::{AssertSqlSafe, Row};

use super::{Dialect, Store, StoreError};
use crate::limits::{HITS_MAX, QUERY_BYTES_MAX, QUERY_WORDS_MAX};

/// Words to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Each a word or a phrase, in lower case, letters and digits only.
    phrases: Vec<Vec<String>>,
}

/// A sentence with the words in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hit {
    /// Who said it.
    pub speaker: String,
    /// When, from the recording's start.
    pub start_ms: i64,
    /// The sentence.
    pub text: String,
    /// The first of the words, as it stands there.
    #[serde(rename = "match")]
    pub matched: String,
}

impl Query {
    /// Reads what a person typed; `None` if there is no word in it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = &text[..text.floor_char_boundary(QUERY_BYTES_MAX)];
        let mut phrases = Vec::new();
        for (i, part) in text.split('"').enumerate() {
            let words: Vec<String> = words_of(part).map(str::to_lowercase).collect();
            if i % 2 == 1 {
                phrases.push(words);
            } else {
                phrases.extend(words.into_iter().map(|word| vec![word]));
            }
        }
        phrases.retain(|phrase| !phrase.is_empty());
        phrases.truncate(QUERY_WORDS_MAX);
        (!phrases.is_empty()).then_some(Self { phrases })
    }

    /// FTS5: each phrase in quotes, all of them; the last may be the beginning of a word.
    fn for_sqlite(&self) -> String {
        let mut parts: Vec<String> = self.phrases.iter().map(|phrase| format!("\"{}\"", phrase.join(" "))).collect();
        if let Some(last) = parts.last_mut() {
            last.push('*');
        }
        parts.join(" AND ")
    }

    /// tsquery: words are letters and digits only, so nothing needs quoting.
    fn for_postgres(&self) -> String {
        let mut parts: Vec<String> = self.phrases.iter().map(|phrase| phrase.join(" <-> ")).collect();
        if let Some(last) = parts.last_mut() {
            last.push_str(":*");
        }
        parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" & ")
    }

    /// The first of our words in a sentence, as it stands there.
    fn first_match(&self, text: &str) -> String {
        let wanted: Vec<&String> = self.phrases.iter().flatten().collect();
        words_of(text)
            .find(|word| {
                let word = word.to_lowercase();
                wanted.iter().any(|wanted| word.starts_with(wanted.as_str()))
            })
            .unwrap_or_default()
            .to_owned()
    }
}

/// Words as both databases cut them: runs of letters and digits.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

impl Store {
    pub(super) fn words(&self, query: &Query) -> String {
        match self.dialect {
            Dialect::Sqlite => query.for_sqlite(),
            Dialect::Postgres => query.for_postgres(),
        }
    }

    /// Ids of recordings with a sentence that fits the words in `parameter`.
    pub(super) fn matching_recordings(&self, parameter: &str) -> String {
        match self.dialect {
            Dialect::Sqlite => format!(
                "SELECT s.recording_id FROM transcript_words w JOIN transcript_segments s ON s.id = w.rowid WHERE transcript_words MATCH {parameter}"
            ),
            Dialect::Postgres => {
                format!("SELECT s.recording_id FROM transcript_segments s WHERE s.words @@ to_tsquery('simple', {parameter})")
            }
        }
    }

    /// Sentences of one recording that fit.
    pub async fn hits(&self, recording_id: &str, query: &Query) -> Result<Vec<Hit>, StoreError> {
        let from = match self.dialect {
            Dialect::Sqlite => "transcript_words w JOIN transcript_segments s ON s.id = w.rowid WHERE transcript_words MATCH $1",
            Dialect::Postgres => "transcript_segments s WHERE s.words @@ to_tsquery('simple', $1)",
        };
        let sql =
            format!("SELECT s.display_name, s.start_ms, s.text FROM {from} AND s.recording_id = $2 ORDER BY s.start_ms LIMIT {HITS_MAX}");
        let rows = sqlx::query(AssertSqlSafe(sql)).bind(self.words(query)).bind(recording_id).fetch_all(&self.read).await?;
        rows.iter()
            .map(|row| {
                let text: String = row.try_get("text")?;
                Ok(Hit {
                    speaker: row.try_get("display_name")?,
                    start_ms: row.try_get("start_ms")?,
                    matched: query.first_match(&text),
                    text,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_words_and_phrases() {
        let query = Query::parse(r#"Green "quarterly  report" bud'get*"#).unwrap();
        assert_eq!(query.for_sqlite(), r#""green" AND "quarterly report" AND "bud" AND "get"*"#);
        assert_eq!(query.for_postgres(), "(green) & (quarterly <-> report) & (bud) & (get:*)");
        assert_eq!(query.first_match("The budgets are GREEN."), "budgets");
    }

    #[test]
    fn nothing_to_look_for_is_no_query() {
        for empty in ["", "  ", "\"\"", "\" \" - *"] {
            assert_eq!(Query::parse(empty), None);
        }
        // A quote that is not closed still is a phrase.
        assert_eq!(Query::parse("\"a b").unwrap().for_sqlite(), "\"a b\"*");
    }
}
