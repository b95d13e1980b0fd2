//! The places that connections and requests take, over all workers: so many in all, and so many
//! connections of one client address.
//!
//! A place is taken by making it and given back by dropping it. Addresses are kept only while
//! they have connections, so there are never more of them than connections. Whose word about an
//! address counts, and what becomes of who finds no place, is said elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decision::request::client_network;

/// Parts of the table of addresses, each with a lock that is held for one look-up.
const SHARDS: usize = 64;

/// Open connections and requests in flight.
#[derive(Debug)]
pub(super) struct Places {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Chooses the shard of an address, unpredictably.
    hasher: RandomState,
    /// Connections by client address; IPv6 by /64, since who has one address of it has them all.
    addresses: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

impl Default for Places {
    fn default() -> Self {
        Self {
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            hasher: RandomState::new(),
            addresses: [(); SHARDS].map(|()| Mutex::default()),
        }
    }
}

/// How many places of one kind are taken; one fewer when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    kind: fn(&Places) -> &AtomicUsize,
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.kind)(&self.places).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place among those of its client address.
#[derive(Debug)]
pub(super) struct AddressPlace {
    places: Arc<Places>,
    network: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        self.places.shard(self.network, |addresses| {
            if let Some(count) = addresses.get_mut(&self.network) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&self.network);
                    // What a flood of addresses took is given back with the last of them.
                    if addresses.is_empty() {
                        *addresses = HashMap::new();
                    }
                }
            }
        });
    }
}

impl Places {
    /// Open connections.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// A place among `max` connections, unless all are taken.
    pub(super) fn connection(self: &Arc<Self>, max: usize) -> Option<Place> {
        self.take(|places| &places.connections, max)
    }

    /// A place among `max` requests, unless all are taken.
    pub(super) fn request(self: &Arc<Self>, max: usize) -> Option<Place> {
        self.take(|places| &places.requests, max)
    }

    fn take(self: &Arc<Self>, kind: fn(&Places) -> &AtomicUsize, max: usize) -> Option<Place> {
        let others = kind(self).fetch_add(1, Ordering::Relaxed);
        let place = Place { places: Arc::clone(self), kind };
        (others < max).then_some(place)
    }

    /// A place among `max` connections of `client`, unless all are taken.
    pub(super) fn address(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<AddressPlace> {
        let network = client_network(client);
        let free = self.shard(network, |addresses| match addresses.get_mut(&network) {
            Some(count) if *count < max => {
                *count += 1;
                true
            }
            Some(_) => false,
            None => {
                addresses.insert(network, 1);
                true
            }
        });
        free.then(|| AddressPlace { places: Arc::clone(self), network })
    }

    fn shard<T>(&self, network: IpAddr, then: impl FnOnce(&mut HashMap<IpAddr, usize>) -> T) -> T {
        let number = usize::try_from(self.hasher.hash_one(network) % SHARDS as u64).unwrap_or(0);
        let [first, ..] = &self.addresses;
        let shard = self.addresses.get(number).unwrap_or(first);
        // Counts are whole whoever panics: nothing is half done under the lock.
        then(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(places: &Places) -> usize {
        places.addresses.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn so_many_and_no_more() {
        let places = Arc::new(Places::default());
        let held: Vec<_> = (0..3).map(|_| places.connection(3).unwrap()).collect();
        assert!(places.connection(3).is_none());
        assert_eq!(places.connections(), 3);
        let request = places.request(1).unwrap();
        assert!(places.request(1).is_none());
        drop((held, request));
        assert_eq!(places.connections(), 0);
        assert!(places.request(1).is_some());
    }

    #[test]
    fn an_address_is_known_while_it_has_connections() {
        let places = Arc::new(Places::default());
        let take = |client: &str, max| places.address(client.parse().unwrap(), max);
        let held = [take("192.0.2.1", 2), take("::ffff:192.0.2.1", 2), take("192.0.2.2", 2)];
        assert!(held.iter().all(Option::is_some));
        assert!(take("192.0.2.1", 2).is_none());
        let one_network = [take("2001:db8::1", 2), take("2001:db8::ffff:1", 2)];
        assert!(take("2001:db8::2", 2).is_none());
        assert!(take("2001:db8:0:1::1", 2).is_some());
        assert_eq!(known(&places), 3);
        drop(one_network);
        assert_eq!(known(&places), 2);
        drop(held);
        assert_eq!(known(&places), 0);
        assert!(take("192.0.2.1", 1).is_some());
    }

    #[test]
    fn over_many_threads_none_is_lost() {
        let places = Arc::new(Places::default());
        std::thread::scope(|scope| {
            for worker in 0..4u8 {
                let places = &places;
                scope.spawn(move || {
                    for n in 0..1000u16 {
                        let client = IpAddr::from([10, 0, worker % 2, (n % 7) as u8]);
                        let _held = (places.connection(3), places.address(client, 2));
                        assert!(places.connections() <= 4);
                    }
                });
            }
        });
        assert_eq!((places.connections(), known(&places)), (0, 0));
    }
}
