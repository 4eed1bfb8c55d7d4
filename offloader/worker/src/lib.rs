//! The worker: one process does one job of the offloader and ends.
//!
//! Five kinds of job. *Record* writes what the media tap gives into the archive, untouched. *Transcribe* and *render* read the
//! closed segments of a recording and make words and a file for people out of them. *Caption* listens to a running call and
//! says what was said while it is being said. *Publish* brings files and words to the Mattermost server that asked for them.
//!
//! The worker holds no state that dies with it: a record job killed at any moment is taken up by the next process, a derived
//! job is simply done again. It decides nothing about who may be recorded; the media node and the archive's writer both keep
//! back the media of people who did not agree.

pub mod audio;
pub mod caption;
pub mod capture;
pub mod job;
pub mod limits;
pub mod notes;
pub mod publish;
pub mod recognise;
pub mod render;
pub mod room;
pub mod run;
pub mod speech;
pub mod transcribe;
