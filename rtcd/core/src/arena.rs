//! Tables whose keys outlive their entries safely: a key of something that ended finds nothing, never its successor.
//!
//! A thread that slept between two packets finds its caches cold: then a packet costs as much as it touches cache lines. So entries begin
//! on one, and their fields stand in the order in which packets need them (docs/decisions/0029).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names an entry of an [`Arena`]. Small, `Copy`, and void once the entry is gone.
pub(crate) struct Key<T> {
    index: u32,
    generation: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Place in the table; used again by later entries.
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    /// As a number, for those who only carry it.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// From [`Self::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32, kind: PhantomData }
    }
}

#[cfg(test)]
impl<T> Key<T> {
    /// Leads nowhere.
    pub(crate) fn for_tests(index: u32) -> Self {
        Self { index, generation: 0, kind: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
        self.generation.hash(state);
    }
}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// A place of the table: begins on a cache line, with the word that says whether it is taken on the same line as what the entry has in front.
/// An `Option` may keep it in any of the entry's fields.
#[repr(C, align(64))]
enum Place<T> {
    Taken(T),
    Free,
}

impl<T> Place<T> {
    #[inline]
    fn get(&self) -> Option<&T> {
        match self {
            Self::Taken(entry) => Some(entry),
            Self::Free => None,
        }
    }

    #[inline]
    fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Taken(entry) => Some(entry),
            Self::Free => None,
        }
    }

    fn take(&mut self) -> Option<T> {
        match std::mem::replace(self, Self::Free) {
            Self::Taken(entry) => Some(entry),
            Self::Free => None,
        }
    }
}

/// A table with stable keys and reused places.
pub(crate) struct Arena<T> {
    /// Apart from the entries, so that sixteen share a cache line.
    generations: Vec<u32>,
    entries: Vec<Place<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self { generations: Vec::new(), entries: Vec::new(), free: Vec::new() }
    }

    /// Makes an entry that may want to know its own key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key<T>) -> T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(0);
            self.entries.push(Place::Free);
            // 2^32 peers do not fit in memory.
            (self.entries.len() - 1) as u32
        });
        let generation = self.generations.get(index as usize).copied().unwrap_or_default();
        let key = Key { index, generation, kind: PhantomData };
        let entry = make(key);
        if let Some(place) = self.entries.get_mut(index as usize) {
            *place = Place::Taken(entry);
        }
        key
    }

    pub(crate) fn insert(&mut self, entry: T) -> Key<T> {
        self.insert_with(|_| entry)
    }

    #[inline]
    fn is_of(&self, key: Key<T>) -> bool {
        self.generations.get(key.index as usize) == Some(&key.generation)
    }

    #[inline]
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        self.entries.get(key.index as usize).filter(|_| self.is_of(key))?.get()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        if !self.is_of(key) {
            return None;
        }
        self.entries.get_mut(key.index as usize)?.get_mut()
    }

    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let generation = self.generations.get_mut(key.index as usize).filter(|generation| **generation == key.generation)?;
        let entry = self.entries.get_mut(key.index as usize)?.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        Some(entry)
    }

    /// The key of the entry now at a place.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key<T>> {
        self.entries.get(index as usize)?.get()?;
        Some(Key { index, generation: *self.generations.get(index as usize)?, kind: PhantomData })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.entries.iter().zip(&self.generations).enumerate().filter_map(|(index, (entry, generation))| {
            Some((Key { index: index as u32, generation: *generation, kind: PhantomData }, entry.get()?))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_a_successor() {
        let mut arena = Arena::new();
        let first = arena.insert("a");
        assert_eq!(arena.remove(first), Some("a"));
        let second = arena.insert("b");
        assert_eq!(first.index(), second.index());
        assert_eq!((arena.get(first), arena.get(second)), (None, Some(&"b")));
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.len(), 1);
        assert_eq!(arena.key_at(second.index()), Some(second));
    }
}
