//! Compiled rules, and where the kernel has them.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    matcher::{Image, compile},
    sys::{SyscallError, bpf, named},
};

/// One compiled rule set, and the map that holds it while it is in force anywhere.
#[derive(Debug)]
pub struct RuleSet {
    /// What relay and kernel decide by.
    pub image: Image,
    map: Mutex<Weak<OwnedFd>>,
}

impl From<Image> for RuleSet {
    fn from(image: Image) -> Self {
        Self { image, map: Mutex::default() }
    }
}

impl Default for RuleSet {
    /// Without a rule.
    fn default() -> Self {
        Self::from(compile([]).expect("nothing fits"))
    }
}

impl RuleSet {
    /// The map that holds it; makes it where it is in force nowhere.
    pub(super) fn map(&self) -> Result<Arc<OwnedFd>, SyscallError> {
        let mut known = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = known.upgrade() {
            return Ok(map);
        }
        let size = size_of_val(self.image.words());
        let map = named("bpf BPF_MAP_CREATE rule set", bpf::array_of_bytes(size, "rules"))?;
        self.write(&map)?;
        let map = Arc::new(map);
        *known = Arc::downgrade(&map);
        Ok(map)
    }

    /// Writes it into a map that no program reads. That one holds it from now on; where another one does already, it is a copy,
    /// and the other one is given.
    pub(super) fn fill(&self, map: &Arc<OwnedFd>) -> Result<Option<Arc<OwnedFd>>, SyscallError> {
        self.write(map)?;
        let mut known = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        let other = known.upgrade();
        if other.is_none() {
            *known = Arc::downgrade(map);
        }
        Ok(other)
    }

    fn write(&self, map: &OwnedFd) -> Result<(), SyscallError> {
        let set = bpf::update_bytes(map.as_fd(), bytemuck::cast_slice(self.image.words()));
        named("bpf BPF_MAP_UPDATE_ELEM rule set", set)
    }
}

/// The rule sets of all namespaces: equal ones are there once.
#[derive(Debug, Default)]
pub struct RuleSets {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Weak<RuleSet>>>,
}

impl RuleSets {
    /// The rule set with this image.
    #[must_use]
    pub fn with(&self, image: Image) -> Arc<RuleSet> {
        let hash = self.hasher.hash_one(&image);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = known.get(&hash).and_then(Weak::upgrade).filter(|same| same.image == image);
        same.unwrap_or_else(|| {
            known.retain(|_, rule_set| rule_set.strong_count() > 0);
            let rule_set = Arc::new(RuleSet::from(image));
            known.insert(hash, Arc::downgrade(&rule_set));
            rule_set
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_one_rule_set_while_somebody_has_it() {
        let rule_sets = RuleSets::default();
        let image = || compile([]).expect("nothing");
        let one = rule_sets.with(image());
        assert!(Arc::ptr_eq(&one, &rule_sets.with(image())));
        drop(one);
        assert!(rule_sets.known.lock().unwrap().values().all(|one| one.upgrade().is_none()));
        let other = rule_sets.with(image());
        assert_eq!(Arc::strong_count(&other), 1);
    }
}
