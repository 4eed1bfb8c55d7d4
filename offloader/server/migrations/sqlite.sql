CREATE VIRTUAL TABLE IF NOT EXISTS transcript_words USING fts5 (text, tokenize = "unicode61 remove_diacritics 2");
