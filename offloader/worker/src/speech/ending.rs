//! The end of a decode at its budget of tokens, so that what whisper.cpp aligns always ends with its end token.
//!
//! whisper.cpp 1.8.3 has a bound of its own (`max_tokens`), which stops without that token; its alignment then reads one segment beyond
//! the last (`whisper_exp_compute_token_level_timestamps_dtw`), which kills the process where the heap ends there.
#![allow(unsafe_code, reason = "whisper.cpp asks a C function which tokens may come next")]

use std::ffi::{c_int, c_void};

use whisper_rs::FullParams;
use whisper_rs::whisper_rs_sys::{whisper_context, whisper_state, whisper_token_data};

/// How many tokens there may be before the end. Must outlive the decode it is used in.
pub(super) struct Ending {
    budget: usize,
    end: usize,
    vocabulary: usize,
}

impl Ending {
    /// After `budget` tokens comes the token `end` of a model that has `vocabulary`.
    pub(super) fn new(budget: usize, end: i32, vocabulary: i32) -> Self {
        let number = |n: i32| usize::try_from(n).unwrap_or(0);
        Self { budget, end: number(end), vocabulary: number(vocabulary) }
    }

    /// Has the decode with these parameters end so.
    pub(super) fn rule<'e>(&'e self, parameters: &mut FullParams<'_, 'e>) {
        // SAFETY: the function changes nothing but the numbers it is given to change, and reads `self`, which outlives the parameters.
        unsafe {
            parameters.set_filter_logits_callback(Some(only_the_end));
            parameters.set_filter_logits_callback_user_data(std::ptr::from_ref(self).cast_mut().cast());
        }
    }

    fn filter(&self, tokens: usize, logits: &mut [f32]) {
        if tokens >= self.budget {
            for (id, logit) in logits.iter_mut().enumerate() {
                *logit = if id == self.end { 0.0 } else { f32::NEG_INFINITY };
            }
        }
    }
}

unsafe extern "C" fn only_the_end(
    _: *mut whisper_context,
    _: *mut whisper_state,
    _: *const whisper_token_data,
    tokens: c_int,
    logits: *mut f32,
    ending: *mut c_void,
) {
    // SAFETY: whisper.cpp gives one number for each token of the model's vocabulary, for the time of this call, and what `rule` left there.
    let (ending, logits) = unsafe {
        let ending: &Ending = &*ending.cast();
        (ending, std::slice::from_raw_parts_mut(logits, ending.vocabulary))
    };
    ending.filter(usize::try_from(tokens).unwrap_or(0), logits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_its_budget_only_the_end_may_come() {
        let ending = Ending::new(2, 3, 5);
        let mut logits = [1.0, 2.0, 3.0, -4.0, 5.0];
        ending.filter(1, &mut logits);
        assert_eq!(logits, [1.0, 2.0, 3.0, -4.0, 5.0]);
        ending.filter(2, &mut logits);
        let none = f32::NEG_INFINITY;
        assert_eq!(logits, [none, none, none, 0.0, none]);
    }
}
