//! The tasks without which the daemon is none. A daemon that steers and no longer notices deaths is worse than none, so
//! somebody has to know when one of them ends.

use std::{any::Any, collections::HashMap, future};

use tokio::task::{Id, JoinSet};

/// Tasks that do not end by themselves. Dropping it ends them.
#[derive(Debug, Default)]
pub struct Core {
    tasks: JoinSet<()>,
    /// What each of them does.
    work: HashMap<Id, &'static str>,
}

impl Core {
    /// Starts one that `does` something: a verb and what.
    pub fn start(&mut self, does: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.work.insert(id, does);
    }

    /// Ready when one of them has ended. Gives what it did, and how it came.
    pub async fn ended(&mut self) -> String {
        let Some(ended) = self.tasks.join_next_with_id().await else { return future::pending().await };
        let (id, how) = match ended {
            Ok((id, ())) => (id, "has ended".to_owned()),
            Err(error) => (
                error.id(),
                error.try_into_panic().map_or_else(|_| "was cancelled".into(), |panic| said(&*panic)),
            ),
        };
        format!("what {} {how}", self.work.get(&id).unwrap_or(&"runs"))
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("has panicked: {}", text.unwrap_or("it did not say why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_task_is_told_with_what_it_did_and_why() {
        let cases: [(fn(), &str); 3] = [
            (|| {}, "what counts sheep has ended"),
            (|| panic!("on purpose"), "what counts sheep has panicked: on purpose"),
            (|| panic!("{} sheep", 3), "what counts sheep has panicked: 3 sheep"),
        ];
        for (work, told) in cases {
            let mut core = Core::default();
            core.start("sleeps", future::pending());
            core.start("counts sheep", async move { work() });
            assert_eq!(core.ended().await, told);
        }
    }

    #[tokio::test]
    async fn nothing_is_told_while_all_of_them_run() {
        let mut core = Core::default();
        core.start("sleeps", future::pending());
        let turns = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            told = core.ended() => panic!("{told}"),
            () = turns => {}
        }
        // It would have been told.
        core.start("counts sheep", async {});
        assert_eq!(core.ended().await, "what counts sheep has ended");
    }
}
