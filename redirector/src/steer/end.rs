//! How steering ends.

use std::sync::Arc;

use super::{
    handshakes,
    steered::{Life, Steered},
};

impl Steered {
    /// Stops steering at once. [`Self::stopped`] waits for what that entails.
    pub(crate) fn stop_steering(self: &Arc<Self>, life: Life) {
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

    /// Lets go of the listeners when what is in their queues has been accepted.
    pub(crate) async fn stopped(&self) {
        self.acceptors.wait().await;
        self.close_sockets();
    }

    /// Stops steering. Connections go on.
    pub(crate) async fn detach(self: &Arc<Self>) {
        self.stop_steering(Life::Detached);
        self.stopped().await;
    }

    /// Lets go of everything at once: connections are reset.
    pub(crate) async fn abort(self: &Arc<Self>) {
        self.stop_steering(Life::Aborted);
        self.stopped().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}
