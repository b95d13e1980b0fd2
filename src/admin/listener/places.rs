//! How many connections one client address may have: whoever opens as many as it can must leave
//! room for others, most of all for an operator who wants to see what is going on.
//!
//! Counts; it accepts and closes nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decision::request::client_network;

/// Open connections by client network. Never larger than there are connections.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<IpAddr, usize>>);

impl Places {
    /// A place for a connection of `client`, unless its network has `max` already.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<Place> {
        let network = client_network(client);
        let mut places = self.lock();
        let taken = places.entry(network).or_default();
        if *taken >= max {
            return None;
        }
        *taken += 1;
        Some(Place { places: Arc::clone(self), network })
    }

    /// A panic under the lock leaves the map whole: each change is one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut taken) = self.places.lock().entry(self.network) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_leaves_room_for_others() {
        let places = Arc::new(Places::default());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = places.take(ip("2001:db8::1"), 2).unwrap();
        let second = places.take(ip("2001:db8::2"), 2).unwrap();
        assert!(places.take(ip("2001:db8::3"), 2).is_none(), "one /64 is one client");
        let other = places.take(ip("2001:db8:0:1::3"), 2).unwrap();
        drop(first);
        let third = places.take(ip("2001:db8::3"), 2).unwrap();
        assert!(places.take(ip("2001:db8::1"), 2).is_none());
        drop((second, third, other));
        assert!(places.lock().is_empty(), "nothing is kept of who has left");
    }
}
