//! Tables without collisions: "hash, displace, and compress", see [`redirector_ebpf::image`].

use redirector_ebpf::image::{Mixed, hashed};

use super::{CompileError, image::Builder};

/// Keys that a bucket has on average, at most.
const BUCKET: usize = 4;

/// A bucket finds its displacement among so many, or the table becomes larger.
const DISPLACEMENTS: u32 = 1 << 14;

/// How often a table is made larger. That it must be is a question of the hash, not of room.
const GROWTHS: usize = 4;

/// Writes a table of entries with as many words each and gives its head; `None` when two keys are the same to its hash.
pub(super) fn write(
    builder: &mut Builder,
    entries: &[(Mixed, Vec<u32>)],
    words: usize,
) -> Result<Option<[u32; hashed::WORDS as usize]>, CompileError> {
    let buckets = (entries.len() / BUCKET).next_power_of_two();
    let smallest = entries.len() + entries.len() / 8 + 1;
    for growth in 0..=GROWTHS {
        let slots = smallest + growth * smallest / 4;
        let Some(placed) = place(entries, mask(buckets), number(slots)) else { continue };
        let mut table = vec![0; slots * words];
        for ((_, entry), at) in entries.iter().zip(&placed.slots) {
            let begin = *at as usize * words;
            table[begin..begin + words].copy_from_slice(entry);
        }
        let displacements = builder.intern(&placed.displacements)?;
        return Ok(Some([displacements, mask(buckets), builder.intern(&table)?, number(slots)]));
    }
    Ok(None)
}

fn mask(size: usize) -> u32 {
    number(size - 1)
}

fn number(size: usize) -> u32 {
    u32::try_from(size).expect("tables are small")
}

struct Placement {
    /// Of each bucket.
    displacements: Vec<u32>,
    /// Of each entry.
    slots: Vec<u32>,
}

fn place(entries: &[(Mixed, Vec<u32>)], bucket_mask: u32, length: u32) -> Option<Placement> {
    let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); bucket_mask as usize + 1];
    for (index, (mixed, _)) in entries.iter().enumerate() {
        buckets[mixed.bucket(bucket_mask) as usize].push(index);
    }
    let mut order: Vec<_> = (0..buckets.len()).collect();
    order.sort_by_key(|bucket| std::cmp::Reverse(buckets[*bucket].len()));
    let mut places = Placement { displacements: vec![0; buckets.len()], slots: vec![0; entries.len()] };
    let mut is_taken = vec![false; length as usize];
    for bucket in order {
        let keys = &buckets[bucket];
        let slot = |key: usize, displacement| entries[key].0.slot(displacement, length);
        let fits = |displacement: &u32| {
            keys.iter().enumerate().all(|(number, key)| {
                let its = slot(*key, *displacement);
                !is_taken[its as usize]
                    && keys[..number].iter().all(|other| slot(*other, *displacement) != its)
            })
        };
        let displacement = (0..DISPLACEMENTS).find(fits)?;
        places.displacements[bucket] = displacement;
        for key in keys {
            let its = slot(*key, displacement);
            is_taken[its as usize] = true;
            places.slots[*key] = its;
        }
    }
    Some(places)
}
