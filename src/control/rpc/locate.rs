//! Where a mirror stands: its host name resolved, its address looked up in the geo databases.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mb_core::geo::{AutonomousSystem, Place};
use mb_core::mirror::MirrorSettings;
use tokio::sync::Semaphore;
use url::Host;

use super::settings::http_host;

/// Looks an address up in the geo databases in use.
pub type Locate = Arc<dyn Fn(IpAddr) -> (Place, AutonomousSystem) + Send + Sync>;

/// The operator waits for the answer; a resolver that needs longer is taken for dead.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Names that are looked up at once for many new mirrors; each keeps a thread busy.
const LOOK_UPS_AT_ONCE: usize = 32;

/// How long looking up the names of many new mirrors may take in all.
const ALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Fills in what the operator left open about the place and network of the mirror. Returns warnings for people.
pub(super) async fn fill_in(settings: &mut MirrorSettings, locate: &Locate) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(host) = http_host(&settings.http_url) else { return warnings };
    if let Some((place, system)) = look_up(&host, locate, &mut warnings).await {
        complete(settings, &place, &system);
    }
    if settings.country_codes.is_empty() && settings.continent_code.is_empty() {
        warnings.push(unknown(&host));
    }
    warnings
}

/// Fills in what the operator left open about many mirrors, a few at a time. Returns warnings for people, each after the name of
/// its mirror. Mirrors whose turn does not come within [`ALL_TIMEOUT`] are left as they are, with a warning.
pub(super) async fn fill_in_all(mirrors: Vec<&mut MirrorSettings>, locate: &Locate) -> Vec<String> {
    let end = tokio::time::Instant::now() + ALL_TIMEOUT;
    let places = Arc::new(Semaphore::new(LOOK_UPS_AT_ONCE));
    let look_ups = mirrors.into_iter().map(|settings| {
        let (places, locate) = (Arc::clone(&places), Arc::clone(locate));
        let mut filled = settings.clone();
        let look_up = tokio::spawn(async move {
            let fill_in = async {
                let _place = places.acquire().await;
                fill_in(&mut filled, &locate).await
            };
            match tokio::time::timeout_at(end, fill_in).await {
                Ok(warnings) => (filled, warnings),
                Err(_) => {
                    let name = &filled.name;
                    let warning = format!("Warning: not located in time: run `mirrorbits geoupdate {name}`");
                    (filled, vec![warning])
                }
            }
        });
        (settings, look_up)
    });
    let look_ups: Vec<_> = look_ups.collect();
    let mut warnings = Vec::new();
    for (settings, look_up) in look_ups {
        match look_up.await {
            Ok((filled, told)) => {
                *settings = filled;
                warnings.extend(told.into_iter().map(|warning| format!("{}: {warning}", settings.name)));
            }
            Err(aborted) => warnings.push(format!("{}: Warning: not located: {aborted}", settings.name)),
        }
    }
    warnings
}

/// Replaces what the settings say about the place and network of the mirror by what is found now; what is not found stays.
/// Returns warnings for people.
pub(super) async fn update(settings: &mut MirrorSettings, locate: &Locate) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(host) = http_host(&settings.http_url) else { return warnings };
    if let Some((place, system)) = look_up(&host, locate, &mut warnings).await {
        if place.country_code.is_empty() && place.continent_code.is_empty() {
            warnings.push(unknown(&host));
        } else {
            replace(settings, &place);
        }
        if system.number != 0 {
            settings.asn = system.number;
        }
    }
    warnings
}

/// The place and network of the first address of `host`.
async fn look_up(host: &Host, locate: &Locate, warnings: &mut Vec<String>) -> Option<(Place, AutonomousSystem)> {
    let addresses = match resolve(host).await {
        Ok(addresses) => addresses,
        Err(reason) => {
            warnings.push(format!("Warning: {host} cannot be resolved: {reason}"));
            return None;
        }
    };
    if addresses.len() > 1 {
        let count = addresses.len();
        warnings.push(format!("Warning: {host} has {count} addresses; they are assumed to be at the same place"));
    }
    addresses.first().map(|&address| locate(address))
}

fn unknown(host: &Host) -> String {
    format!(
        "Warning: the location of {host} is unknown: tell Latitude, Longitude, ContinentCode and CountryCodes by \
         `mirrorbits set`"
    )
}

/// The distinct addresses of `host`, in the resolver's order.
async fn resolve(host: &Host) -> Result<Vec<IpAddr>, String> {
    let name = match host {
        Host::Ipv4(address) => return Ok(vec![IpAddr::V4(*address)]),
        Host::Ipv6(address) => return Ok(vec![IpAddr::V6(*address)]),
        Host::Domain(name) => name.as_str(),
    };
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, 0)));
    let found = resolved.await.map_err(|_| format!("no answer within {} seconds", RESOLVE_TIMEOUT.as_secs()))?;
    let mut addresses = Vec::new();
    for address in found.map_err(|error| error.to_string())? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

/// Takes from the lookup what the settings leave open.
fn complete(settings: &mut MirrorSettings, place: &Place, system: &AutonomousSystem) {
    if (settings.latitude, settings.longitude) == (0.0, 0.0) {
        settings.latitude = place.latitude;
        settings.longitude = place.longitude;
    }
    if settings.continent_code.is_empty() {
        settings.continent_code.clone_from(&place.continent_code);
    }
    if settings.country_codes.is_empty() {
        settings.country_codes.clone_from(&place.country_code);
    }
    if settings.asn == 0 {
        settings.asn = system.number;
    }
}

/// Moves the mirror to `place`. Countries that it serves beside its own are kept as long as its own stays the same.
fn replace(settings: &mut MirrorSettings, place: &Place) {
    settings.latitude = place.latitude;
    settings.longitude = place.longitude;
    settings.continent_code.clone_from(&place.continent_code);
    if settings.country_codes.split_whitespace().next() != Some(&place.country_code) {
        settings.country_codes.clone_from(&place.country_code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paris() -> Locate {
        Arc::new(|_| {
            let place = Place {
                country_code: "FR".into(),
                continent_code: "EU".into(),
                latitude: 48.8566,
                longitude: 2.3522,
                ..Place::default()
            };
            (place, AutonomousSystem { number: 64496, name: "Example".into() })
        })
    }

    #[tokio::test]
    async fn what_is_offloaded_is_filled_in() {
        let mut settings = MirrorSettings { http_url: "192.0.2.5/".into(), ..MirrorSettings::default() };
        assert_eq!(fill_in(&mut settings, &paris()).await, Vec::<String>::new());
        assert_eq!((settings.latitude, settings.longitude), (48.8566, 2.3522));
        assert_eq!((settings.continent_code.as_str(), settings.country_codes.as_str()), ("EU", "FR"));
        assert_eq!(settings.asn, 64496);
    }

    #[tokio::test]
    async fn what_the_operator_gave_is_kept() {
        let given = MirrorSettings {
            http_url: "http://192.0.2.5/".into(),
            latitude: 35.0,
            country_codes: "JP".into(),
            continent_code: "AS".into(),
            asn: 1,
            ..MirrorSettings::default()
        };
        let mut settings = given.clone();
        fill_in(&mut settings, &paris()).await;
        assert_eq!(settings, given);
    }

    #[tokio::test]
    async fn an_unknown_location_is_a_warning() {
        let nowhere: Locate = Arc::new(|_| Default::default());
        let mut settings = MirrorSettings { http_url: "http://[::1]:8080/".into(), ..MirrorSettings::default() };
        let warnings = fill_in(&mut settings, &nowhere).await;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("location of [::1] is unknown"), "{warnings:?}");
    }

    #[tokio::test]
    async fn a_mirror_that_moved_is_found_again() {
        let tokyo = MirrorSettings {
            http_url: "http://192.0.2.5/".into(),
            latitude: 35.0,
            country_codes: "JP KR".into(),
            continent_code: "AS".into(),
            asn: 1,
            ..MirrorSettings::default()
        };
        let mut settings = tokyo.clone();
        assert_eq!(update(&mut settings, &paris()).await, Vec::<String>::new());
        assert_eq!((settings.latitude, settings.longitude, settings.asn), (48.8566, 2.3522, 64496));
        assert_eq!((settings.continent_code.as_str(), settings.country_codes.as_str()), ("EU", "FR"));

        settings.country_codes = "FR BE".into();
        update(&mut settings, &paris()).await;
        assert_eq!(settings.country_codes, "FR BE");

        let nowhere: Locate = Arc::new(|_| Default::default());
        let mut settings = tokyo.clone();
        assert_eq!(update(&mut settings, &nowhere).await.len(), 1);
        assert_eq!(settings, tokyo, "what is not found stays");
    }
}
