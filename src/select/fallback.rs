//! Servers of last resort, for when no mirror may answer.

use mb_core::mirror::{DownloadProtocol, MirrorSettings, UrlScheme, absolute_url};

use super::{Client, Code, Wanted};

/// A fallback server, prepared.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// What JSON shows of it: the name `fallback0`, `fallback1`, … by its place in the configuration, URL and codes.
    pub settings: MirrorSettings,
    /// Lower-case country for `Link` headers; empty when unknown.
    pub geo_label: String,
    scheme: UrlScheme,
    http_url: String,
    https_url: String,
    country: Code,
    continent: Code,
}

impl Fallback {
    /// Prepares the configured fallbacks.
    pub fn prepare(configured: &[mb_core::config::Fallback]) -> Vec<Fallback> {
        let prepare = |(place, fallback): (usize, &mb_core::config::Fallback)| Fallback {
            settings: MirrorSettings {
                name: format!("fallback{place}"),
                http_url: fallback.url.clone(),
                country_codes: fallback.country_code.clone(),
                continent_code: fallback.continent_code.clone(),
                ..MirrorSettings::default()
            },
            geo_label: fallback.country_code.to_ascii_lowercase(),
            scheme: UrlScheme::of(&fallback.url),
            http_url: absolute_url(&fallback.url, DownloadProtocol::Http),
            https_url: absolute_url(&fallback.url, DownloadProtocol::Https),
            country: Code::of(&fallback.country_code),
            continent: Code::of(&fallback.continent_code),
        };
        configured.iter().enumerate().map(prepare).collect()
    }

    /// Base URL with its scheme: one that has none gets `http://` when only HTTP is wanted, else `https://`.
    pub fn absolute_url(&self, wanted: Wanted) -> &str {
        if wanted == Wanted::Http { &self.http_url } else { &self.https_url }
    }

    fn may_answer(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Any => true,
            Wanted::Https => self.scheme.offers(DownloadProtocol::Https),
            Wanted::Http => self.scheme.offers(DownloadProtocol::Http),
        }
    }

    fn rank(&self, client: &Client) -> u8 {
        if self.country == client.country {
            0
        } else if self.continent == client.continent && self.continent != Code::NONE {
            1
        } else {
            2
        }
    }
}

/// Puts the places of the fallbacks that may answer into `ranked`: same country first, then same continent, then the
/// others, each in configured order; random for a client that is not located.
pub fn rank(
    fallbacks: &[Fallback],
    client: &Client,
    wanted: Wanted,
    ranked: &mut Vec<usize>,
    mut random_below: impl FnMut(u64) -> u64,
) {
    ranked.clear();
    let may_answer = fallbacks.iter().enumerate().filter(|(_, fallback)| fallback.may_answer(wanted));
    ranked.extend(may_answer.map(|(place, _)| place));
    if client.is_located() {
        ranked.sort_by_key(|&place| fallbacks.get(place).map(|fallback| fallback.rank(client)));
    } else {
        for last in (1..ranked.len()).rev() {
            ranked.swap(last, random_below((last as u64).saturating_add(1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallbacks() -> Vec<Fallback> {
        let configured =
            [("http://us/", "US", "NA"), ("de/", "DE", "EU"), ("https://fr/", "FR", "EU"), ("any/", "", "")].map(
                |(url, country_code, continent_code)| mb_core::config::Fallback {
                    url: url.to_owned(),
                    country_code: country_code.to_owned(),
                    continent_code: continent_code.to_owned(),
                },
            );
        Fallback::prepare(&configured)
    }

    fn ranked(country: &str, continent: &str, wanted: Wanted) -> Vec<usize> {
        let client = Client { country: Code::of(country), continent: Code::of(continent), asn: 0 };
        let mut ranked = Vec::new();
        rank(&fallbacks(), &client, wanted, &mut ranked, |n| n - 1);
        ranked
    }

    #[test]
    fn country_comes_before_continent_before_configured_order() {
        assert_eq!(ranked("FR", "EU", Wanted::Any), [2, 1, 0, 3]);
        assert_eq!(ranked("US", "NA", Wanted::Any), [0, 1, 2, 3]);
        assert_eq!(ranked("JP", "AS", Wanted::Any), [0, 1, 2, 3]);
    }

    #[test]
    fn schemes_are_kept() {
        assert_eq!(ranked("FR", "EU", Wanted::Http), [1, 0, 3]);
        assert_eq!(ranked("FR", "EU", Wanted::Https), [2, 1, 3]);
        assert_eq!(fallbacks()[1].absolute_url(Wanted::Http), "http://de/");
        assert_eq!(fallbacks()[1].absolute_url(Wanted::Any), "https://de/");
        assert_eq!(fallbacks()[0].absolute_url(Wanted::Any), "http://us/");
    }
}
