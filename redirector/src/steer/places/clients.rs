//! How many connections each client has.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Locks of one namespace for its clients' numbers.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<IpAddr, u32>>;

/// How many connections each client has. Used only with a limit for them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    hasher: RandomState,
    shards: OnceLock<Box<[Shard; SHARDS]>>,
}

impl Clients {
    /// Counts one more, unless there are `most`: then it is `false`.
    pub(super) fn enter(&self, client: IpAddr, most: NonZeroU32) -> bool {
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_default();
        let fits = *count < most.get();
        *count += u32::from(fits);
        fits
    }

    /// Counts one less.
    pub(super) fn leave(&self, client: IpAddr) {
        let mut shard = self.shard(client);
        if let Some(count) = shard.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&client);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.shards.get().is_none_or(|shards| shards.iter().all(|shard| shard.lock().unwrap().is_empty()))
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let hash = self.hasher.hash_one(client);
        let index = usize::try_from(hash % SHARDS as u64).expect("less than the number of shards");
        self.shards.get_or_init(Box::default)[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
