//! Locks by key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// One holder at a time per key; holders of different keys do not wait for each other.
#[derive(Debug)]
pub struct KeyedLocks<K> {
    held: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

impl<K> Default for KeyedLocks<K> {
    fn default() -> Self {
        Self { held: Mutex::default() }
    }
}

impl<K: Eq + Hash> KeyedLocks<K> {
    /// Waits until nobody holds `key`, and holds it until the guard is dropped.
    pub async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        let lock = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(held.entry(key).or_default())
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_key_waits_and_nothing_is_kept_of_it() {
        let locks = KeyedLocks::default();
        let web = locks.lock("web").await;
        let db = locks.lock("db").await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), locks.lock("web"));
        assert!(second.await.is_err(), "held");
        drop(web);
        let web = locks.lock("web").await;
        drop((web, db));
        drop(locks.lock("other").await);
        assert_eq!(locks.held.lock().expect("lock").len(), 1);
    }
}
