//! Word error rate after a small English normaliser in the manner of Whisper's: case, punctuation, spelling and the writing of
//! numbers are not errors.

/// Words to compare.
pub fn normalise(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let lower = text.to_lowercase().replace('’', "'").replace(['-', '–', '—'], " ");
    for raw in lower.split_whitespace() {
        let word: String = raw.chars().filter(|c| c.is_alphanumeric() || *c == '\'').collect();
        let word = word.trim_matches('\'');
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        let rest = &word[digits.len()..];
        if !digits.is_empty() && matches!(rest, "" | "st" | "nd" | "rd" | "th" | "s") {
            out.extend(number(&digits, !rest.is_empty() && rest != "s"));
        } else if !word.is_empty() {
            out.push(spelling(word));
        }
    }
    out
}

fn spelling(word: &str) -> String {
    match word {
        "mr" => "mister".into(),
        "mrs" => "missus".into(),
        "oh" => "o".into(),
        "practised" => "practiced".into(),
        "levying" => "levying".into(),
        _ => word.replace("our", "or").replace("isation", "ization"),
    }
}

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

fn number(digits: &str, ordinal: bool) -> Vec<String> {
    let Ok(n) = digits.parse::<usize>() else { return vec![digits.to_string()] };
    let mut words = match n {
        0..100 => below_100(n),
        // Years as they are read out.
        1100..2000 if n % 100 == 0 => [below_100(n / 100), vec!["hundred".into()]].concat(),
        1100..2000 if n % 100 < 10 => [below_100(n / 100), vec!["o".into()], below_100(n % 100)].concat(),
        1100..2000 => [below_100(n / 100), below_100(n % 100)].concat(),
        100..1000 if n % 100 == 0 => [below_100(n / 100), vec!["hundred".into()]].concat(),
        100..1000 => [below_100(n / 100), vec!["hundred".into()], below_100(n % 100)].concat(),
        _ => vec![digits.to_string()],
    };
    if ordinal && let Some(last) = words.last_mut() {
        *last = match last.as_str() {
            "one" => "first".into(),
            "two" => "second".into(),
            "three" => "third".into(),
            "five" => "fifth".into(),
            "twelve" => "twelfth".into(),
            other if other.ends_with('y') => format!("{}ieth", &other[..other.len() - 1]),
            other => format!("{}th", other.trim_end_matches('e').trim_end_matches('t')),
        };
    }
    words.into_iter().map(|w| spelling(&w)).collect()
}

fn below_100(n: usize) -> Vec<String> {
    match n {
        0..20 => vec![ONES[n].into()],
        _ if n.is_multiple_of(10) => vec![TENS[n / 10].into()],
        _ => vec![TENS[n / 10].into(), ONES[n % 10].into()],
    }
}

/// Wrong words (substituted, lost, invented) and words in the reference.
pub fn errors(reference: &str, heard: &str) -> (usize, usize) {
    let (reference, heard) = (normalise(reference), normalise(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, wanted) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in heard.iter().enumerate() {
            let cost = diagonal + usize::from(wanted != got);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    (row[heard.len()], reference.len())
}

#[test]
fn writing_is_not_an_error_but_words_are() {
    assert_eq!(errors("IN SIXTEEN SIXTY FIVE NEIGHBOURS", "In 1665, neighbors."), (0, 5));
    assert_eq!(errors("the eighteen o three 22nd", "the 1803 twenty-second"), (0, 6));
    assert_eq!(errors("a b c d", "a x c"), (2, 4));
    assert_eq!(errors("", "thank you"), (2, 0));
}
