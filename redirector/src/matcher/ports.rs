//! Sets of port ranges: what is in force from which port on.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Ascending ranges, first and last port both included.
pub(super) type Ranges = Rc<[(u16, u16)]>;

/// Goes through all ports from 0 on and asks what holds where these sets (each with its key) are in force. Gives each
/// answer with the first port of it.
pub(super) fn sweep<'a, K: Ord + Copy, T: PartialEq, E>(
    sets: impl Iterator<Item = (K, &'a [(u16, u16)])>,
    mut answer: impl FnMut(&BTreeSet<K>) -> Result<T, E>,
) -> Result<Vec<(u16, T)>, E> {
    let mut changes: BTreeMap<u32, (Vec<K>, Vec<K>)> = BTreeMap::from([(0, Default::default())]);
    for (key, ranges) in sets {
        for (first, last) in ranges {
            changes.entry((*first).into()).or_default().0.push(key);
            changes.entry(u32::from(*last) + 1).or_default().1.push(key);
        }
    }
    let mut in_force = BTreeSet::new();
    let mut found: Vec<(u16, T)> = Vec::new();
    for (port, (begin, end)) in changes {
        let Ok(port) = u16::try_from(port) else { break };
        for key in &end {
            in_force.remove(key);
        }
        in_force.extend(begin);
        let answer = answer(&in_force)?;
        if found.last().is_none_or(|(_, last)| *last != answer) {
            found.push((port, answer));
        }
    }
    Ok(found)
}
