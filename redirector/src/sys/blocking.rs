//! Work that blocks, on threads that have nothing else to do.

use std::{future, io};

/// Runs work that blocks on a thread of the runtime's blocking pool, and waits for it.
///
/// While the runtime ends, work that has not begun is thrown away. Then this is never ready: whoever waits for it is
/// about to be dropped with the runtime, and has nobody left to tell an error to.
///
/// # Errors
///
/// When the work has panicked.
///
/// # Panics
///
/// Outside of a Tokio runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) if error.is_panic() => Err(io::Error::other(error)),
        Err(_thrown_away) => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap()
    }

    /// A task that is being polled while the runtime ends is polled to its end, whatever it finds there.
    #[test]
    fn a_task_that_asks_while_the_runtime_ends_is_no_panic() {
        let (runtime, (began, has_begun), (go_on, may_go_on)) = (runtime(), mpsc::channel(), mpsc::channel());
        let task = runtime.spawn(async move {
            began.send(()).unwrap();
            may_go_on.recv().unwrap();
            blocking(|| ()).await.unwrap();
        });
        has_begun.recv().unwrap();
        runtime.shutdown_background();
        go_on.send(()).unwrap();
        let ended = self::runtime().block_on(task);
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }

    /// What waits for a thread when the runtime ends is thrown away.
    #[test]
    fn a_task_whose_work_is_thrown_away_is_no_panic() {
        let (runtime, (_end, ended), (began, has_begun)) =
            (runtime(), mpsc::channel::<()>(), mpsc::channel());
        let busy = began.clone();
        runtime.spawn_blocking(move || {
            busy.send(()).unwrap();
            ended.recv().unwrap_err();
        });
        has_begun.recv().unwrap();
        let task = runtime.spawn(async move {
            began.send(()).unwrap();
            blocking(|| ()).await.unwrap();
        });
        has_begun.recv().unwrap();
        runtime.shutdown_timeout(Duration::ZERO);
        let ended = self::runtime().block_on(task);
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }

    #[test]
    fn a_panic_of_the_work_is_an_error() {
        let told = runtime().block_on(blocking(|| panic!("on purpose"))).map(|()| "done").unwrap_err();
        assert!(told.to_string().contains("panicked"), "{told}");
    }
}
