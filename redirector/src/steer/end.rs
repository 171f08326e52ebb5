//! How steering ends.

use std::sync::Arc;

use super::{
    handshakes,
    steered::{Life, Steered},
};

/// What becomes of the connections that are relayed when steering ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// They go on.
    Detach,
    /// They are reset.
    Abort,
}

impl Steered {
    /// Stops steering at once. What it returns lets go of our sockets, when what is in the listeners' queues has been accepted,
    /// and waits for the end of connections that are reset. It may be called again, with less patience.
    pub(crate) fn end(self: &Arc<Self>, how: How) -> impl Future<Output = ()> + Send + use<> {
        self.stop(match how {
            How::Detach => Life::Detached,
            How::Abort => Life::Aborted,
        });
        let netns = Arc::clone(self);
        async move {
            netns.acceptors.wait().await;
            netns.close_sockets();
            if how == How::Abort {
                netns.tasks.close();
                netns.tasks.wait().await;
            }
        }
    }

    fn stop(self: &Arc<Self>, life: Life) {
        self.instance.detach();
        let is_news = self.life.send_if_modified(|now| {
            let forward = *now < life;
            *now = life.max(*now);
            forward
        });
        // Once more: a link that was being put back at this moment.
        self.instance.detach();
        if is_news && life == Life::Detached && !self.listeners().is_empty() {
            let netns = Arc::clone(self);
            self.acceptors.spawn(async move {
                handshakes::wait(&netns).await;
                netns.handshakes_over.cancel();
            });
        }
        self.dialer.factory.clear();
        self.share.release();
        self.acceptors.close();
    }
}
