//! Who is let in: inbound connections counted, in all and per address, from their first packet to their end.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Places for inbound connections. What is kept is bounded by their number.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    counts: Arc<Mutex<Counts>>,
    max: u32,
    max_per_address: u32,
}

#[derive(Debug, Default)]
struct Counts {
    all: u32,
    by_source: HashMap<Source, u32>,
}

/// Where connections are counted together: an IPv4 address, or a /64 network of IPv6, which is what one host commonly
/// has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// What to do with a connection attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Go on; the place is taken until it is dropped.
    Accept(Place),
    /// Have the sender prove its address first.
    ProveAddress,
    /// No place.
    Refuse,
}

/// A taken place.
#[derive(Debug)]
pub(crate) struct Place {
    counts: Arc<Mutex<Counts>>,
    source: Source,
}

impl Admission {
    /// `max` places, at most `max_per_address` of them for one address.
    pub(crate) fn new(max: u32, max_per_address: u32) -> Self {
        Self { counts: Arc::default(), max, max_per_address }
    }

    /// Decides about an attempt from `address`, which is `proven` if its sender has shown to receive what is sent
    /// there.
    ///
    /// Without the proof, whoever forges sender addresses could fill the places of an honest one, or all of them: so
    /// forging gets at most the first place of an address, and at most half of all.
    pub(crate) fn decide(&self, address: IpAddr, proven: bool) -> Verdict {
        let source = Source::from(address);
        let mut counts = lock(&self.counts);
        let here = counts.by_source.get(&source).copied().unwrap_or(0);
        if counts.all >= self.max || here >= self.max_per_address {
            return Verdict::Refuse;
        }
        if !proven && (here > 0 || counts.all >= self.max / 2) {
            return Verdict::ProveAddress;
        }
        counts.all += 1;
        counts.by_source.insert(source, here + 1);
        Verdict::Accept(Place { counts: Arc::clone(&self.counts), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all = counts.all.saturating_sub(1);
        match counts.by_source.get_mut(&self.source) {
            Some(here) if *here > 1 => *here -= 1,
            Some(_) | None => {
                counts.by_source.remove(&self.source);
            }
        }
    }
}

/// The counts are whole at every moment, so a panic elsewhere does not spoil them.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    fn place(admission: &Admission, address: &str) -> Place {
        match admission.decide(ip(address), true) {
            Verdict::Accept(place) => place,
            other => panic!("{address} got {other:?}"),
        }
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let admission = Admission::new(4, 2);
        let _taken = [place(&admission, "10.0.0.1"), place(&admission, "10.0.0.1")];
        assert!(matches!(admission.decide(ip("10.0.0.1"), true), Verdict::Refuse));
        assert!(matches!(admission.decide(ip("::ffff:10.0.0.1"), true), Verdict::Refuse));
        let _other = place(&admission, "10.0.0.2");
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let admission = Admission::new(4, 1);
        let _taken = place(&admission, "2001:db8:0:1::1");
        assert!(matches!(admission.decide(ip("2001:db8:0:1:ffff::2"), true), Verdict::Refuse));
        let _other = place(&admission, "2001:db8:0:2::1");
    }

    #[test]
    fn there_are_no_more_places_than_configured_and_freed_ones_come_back() {
        let admission = Admission::new(2, 2);
        let first = place(&admission, "10.0.0.1");
        let _second = place(&admission, "10.0.0.2");
        assert!(matches!(admission.decide(ip("10.0.0.3"), true), Verdict::Refuse));
        drop(first);
        let third = place(&admission, "10.0.0.3");
        drop(third);
        assert_eq!(lock(&admission.counts).by_source.len(), 1, "addresses that left are still remembered");
    }

    #[test]
    fn forged_senders_get_one_place_of_an_address_and_half_of_all() {
        let admission = Admission::new(4, 4);
        let mut taken = Vec::new();
        for address in ["10.0.0.1", "10.0.0.2"] {
            match admission.decide(ip(address), false) {
                Verdict::Accept(place) => taken.push(place),
                other => panic!("{address} got {other:?}"),
            }
            assert!(matches!(admission.decide(ip(address), false), Verdict::ProveAddress));
        }
        assert!(matches!(admission.decide(ip("10.0.0.3"), false), Verdict::ProveAddress));
        taken.push(place(&admission, "10.0.0.3"));
    }
}
