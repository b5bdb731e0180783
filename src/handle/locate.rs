//! Where clients are, cached by geo record: a place is decoded once per shard and generation of the databases.
//!
//! A redirect needs no place, only its key, for which the choice has been prepared: an [`Origin`]. Everything else is a
//! [`Location`].

use std::net::IpAddr;
use std::rc::Rc;

use mb_core::geo::{AutonomousSystem, GeoDatabase, Located, Place, RecordKey};

use crate::select::associative::AssociativeNumbers;
use crate::select::cache::Cache;
use crate::select::distance::{Point, Position, kilometres};
use crate::select::{Client, Code, TableMirror};

/// Most bytes of places that a shard keeps: some 30,000 places.
const PLACES_BUDGET: usize = 8 * 1024 * 1024;
/// Most autonomous systems that a shard keeps.
const SYSTEMS: usize = 16 * 1024;

/// A place with what the selection derives from it.
pub struct KnownPlace {
    /// The place.
    pub place: Place,
    /// Its country.
    pub country: Code,
    /// Its continent.
    pub continent: Code,
    position: Position,
}

impl KnownPlace {
    fn new(place: Place) -> KnownPlace {
        KnownPlace {
            country: Code::of(&place.country_code),
            continent: Code::of(&place.continent_code),
            position: Point { latitude: place.latitude, longitude: place.longitude }.into(),
            place,
        }
    }

    /// Kilometres to `mirror`; 0 for a client that is not located.
    pub fn distance(&self, mirror: &TableMirror) -> f32 {
        if self.country == Code::NONE {
            return 0.0;
        }
        kilometres(&self.position, &mirror.position)
    }

    fn bytes(&self) -> usize {
        let text = &self.place;
        let texts = [&text.city, &text.country, &text.country_code, &text.continent_code];
        texts.iter().map(|text| text.len()).fold(size_of::<Self>(), usize::saturating_add)
    }
}

/// Where a request comes from, as far as it takes no memory but the geo databases' trees to tell.
pub struct Origin<'g> {
    /// Its address.
    pub address: IpAddr,
    /// Names its place.
    pub place_key: RecordKey,
    /// Number of its autonomous system; 0 when unknown.
    pub asn: u32,
    located: Located<'g>,
}

/// Where a client is.
pub struct Location {
    /// Its address.
    pub address: IpAddr,
    /// Its place.
    pub place: Rc<KnownPlace>,
    /// Its network.
    pub system: Rc<AutonomousSystem>,
}

impl Location {
    /// Where `address` is, looked up without a cache.
    pub fn look_up(geo: &GeoDatabase, address: IpAddr) -> Location {
        let located = geo.locate(address);
        let place = Rc::new(KnownPlace::new(located.place()));
        Location { address, place, system: Rc::new(located.autonomous_system()) }
    }

    /// The client as the rules see it.
    pub fn client(&self) -> Client {
        Client { country: self.place.country, continent: self.place.continent, asn: self.system.number }
    }
}

/// The caches of one shard.
pub struct Locator {
    places: Cache<RecordKey, Rc<KnownPlace>>,
    systems: Cache<RecordKey, Rc<AutonomousSystem>>,
    /// The numbers of `systems` alone.
    numbers: AssociativeNumbers,
}

impl Locator {
    /// Empty caches.
    pub fn new() -> Locator {
        Locator {
            places: Cache::new(PLACES_BUDGET),
            systems: Cache::new(SYSTEMS),
            numbers: AssociativeNumbers::new(SYSTEMS),
        }
    }

    /// Forgets everything: the databases changed.
    pub fn clear(&mut self) {
        self.places.clear();
        self.systems.clear();
        self.numbers.clear();
    }

    /// Looks `address` up, and does something else `meanwhile`.
    pub fn origin<'g>(&mut self, geo: &'g GeoDatabase, address: IpAddr, meanwhile: impl FnOnce()) -> Origin<'g> {
        let mut announced = None;
        let located = geo.locate_in_steps(address, |system| {
            meanwhile();
            if system != RecordKey::NONE {
                announced = Some(self.numbers.announce(system.number().into()));
            }
        });
        let asn = announced.map_or(0, |announced| {
            self.numbers.find(announced).unwrap_or_else(|| {
                let number = located.autonomous_system().number;
                self.numbers.insert(announced, number);
                number
            })
        });
        Origin { address, place_key: located.place_key(), asn, located }
    }

    /// Where `origin` is.
    pub fn locate(&mut self, origin: &Origin<'_>) -> Location {
        let place = self.places.get(&origin.place_key, |place| place.bytes()).unwrap_or_else(|| {
            let place = Rc::new(KnownPlace::new(origin.located.place()));
            self.places.insert(origin.place_key, place.clone(), place.bytes());
            place
        });
        let system_key = origin.located.autonomous_system_key();
        let system = self.systems.get(&system_key, |_| 1).unwrap_or_else(|| {
            let system = Rc::new(origin.located.autonomous_system());
            self.systems.insert(system_key, system.clone(), 1);
            system
        });
        Location { address: origin.address, place, system }
    }
}
