//! Who reads a track that somebody sends, and asks for whole pictures of it.

use std::sync::Arc;

use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use tokio::task::JoinHandle;
use webrtc::media_stream::track_remote::TrackRemote;

/// A task that reads a track, since its first packet, for as long as this is there.
pub(super) struct Reader {
    remote: Arc<dyn TrackRemote>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(super) fn new(remote: Arc<dyn TrackRemote>, task: JoinHandle<()>) -> Self {
        Self { remote, task }
    }

    /// Asks for a picture that needs no earlier one.
    pub(super) async fn request_key_frame(&self) {
        for media_ssrc in self.remote.ssrcs().await {
            let wish = PictureLossIndication { sender_ssrc: 0, media_ssrc };
            if let Err(error) = self.remote.write_rtcp(vec![Box::new(wish)]).await {
                tracing::debug!(%error, "no key frame can be asked for");
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
