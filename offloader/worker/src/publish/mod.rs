//! Brings what was made of a call to an S3 bucket ([`bucket`]), or back to the Mattermost server that asked for it ([`job`]): files in
//! bounded pieces that go on where they stopped, then one post.
//!
//! Nothing here can lose a file: it stays in the archive, and the job waits for as long as the server is away or does not take the
//! bot's session any more. And nothing makes a second post: before a post is asked for that is noted, and where the answer got
//! lost the server is asked whether the file hangs on a post already.

pub mod bucket;
pub mod job;
mod upload;
pub mod words;
