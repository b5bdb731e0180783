//! Download statistics: what is counted, and over which time it is read.
//!
//! Each count is kept four times, for its UTC day, month, year and for all time, as Mirrorbits does: a range of dates is
//! then read from the fewest of them ([`DateRange::periods`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::{Date, Month};

use crate::config::StatsRetention;
use crate::mirror::MirrorId;

/// Requests and bytes sent to a mirror.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Downloads.
    pub requests: u64,
    /// Sizes of the downloaded files, added up.
    pub bytes: u64,
}

impl Traffic {
    /// Adds another count; saturates.
    pub fn add(&mut self, other: Traffic) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What was counted in one period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Downloads by path.
    pub files: BTreeMap<Vec<u8>, u64>,
    /// Traffic by mirror.
    pub mirrors: BTreeMap<MirrorId, Traffic>,
}

/// Counts of one node that are added to the store as a whole, once.
///
/// Redis answers nobody else while a batch is applied, which takes about 15 µs for each file of a day: keep a batch below a
/// thousand or so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsBatch {
    /// The node that counted, by a name that it keeps.
    pub node: String,
    /// Larger than that of the node's batch before; the first is at least 1.
    pub sequence: u64,
    /// What was counted, by UTC day.
    pub days: BTreeMap<Date, Counts>,
}

impl StatsBatch {
    /// All downloads of the batch.
    pub fn downloads(&self) -> u64 {
        self.days.values().flat_map(|counts| counts.files.values()).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Requests of one download, as a node saw them: more of them, on whatever node, belong to it when they come within the
/// interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Stands for client and file.
    pub hash: u128,
    /// When the first of the requests came.
    pub first: Instant,
    /// When the last of them came.
    pub last: Instant,
    /// How long after a request another one is the same download.
    pub interval: Duration,
}

/// A time over which counts are kept added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// Since ever.
    AllTime,
    /// A year.
    Year(i32),
    /// A month of a year.
    Month(i32, Month),
    /// A UTC day.
    Day(Date),
}

impl Period {
    /// The four periods to which a day belongs, from the day itself to all time.
    pub fn containing(day: Date) -> [Period; 4] {
        [Period::Day(day), Period::Month(day.year(), day.month()), Period::Year(day.year()), Period::AllTime]
    }

    /// The period that a text like `2026`, `2026-11` or `2026-11-22` means; `None` when it means none.
    pub fn from_text(text: &str) -> Option<Period> {
        let period = Period::from_suffix(&format!("_{}", text.replace('-', "_")))?;
        (text.len() == period.suffix().len() - 1 && !text.contains('_')).then_some(period)
    }

    /// Whether `retention` lets go of the counts of this period on the day `today`.
    pub fn is_dropped(self, retention: StatsRetention, today: Date) -> bool {
        let months = |year: i32, month: Month| i64::from(year) * 12 + i64::from(u8::from(month));
        match self {
            Period::Day(day) => retention.days.is_some_and(|days| (today - day).whole_days() >= i64::from(days)),
            Period::Month(year, month) => retention
                .months
                .is_some_and(|kept| months(today.year(), today.month()) - months(year, month) >= i64::from(kept)),
            Period::Year(_) | Period::AllTime => false,
        }
    }

    /// A number for the period, readable by people: 0, 2026, 202611, 20261122.
    pub(super) fn number(self) -> i64 {
        match self {
            Period::AllTime => 0,
            Period::Year(year) => i64::from(year),
            Period::Month(year, month) => i64::from(year) * 100 + i64::from(u8::from(month)),
            Period::Day(day) => {
                i64::from(day.year()) * 10_000 + i64::from(u8::from(day.month())) * 100 + i64::from(day.day())
            }
        }
    }

    /// The period of a number; `None` when it is none. Years have four digits.
    pub(super) fn from_number(number: i64) -> Option<Period> {
        let part = |number: i64| u8::try_from(number % 100).ok();
        match number {
            0 => Some(Period::AllTime),
            1000..=9999 => i32::try_from(number).ok().map(Period::Year),
            100_000..=999_999 => {
                Some(Period::Month(i32::try_from(number / 100).ok()?, Month::try_from(part(number)?).ok()?))
            }
            10_000_000..=99_999_999 => {
                let month = Month::try_from(part(number / 100)?).ok()?;
                let day = Date::from_calendar_date(i32::try_from(number / 10_000).ok()?, month, part(number)?);
                day.ok().map(Period::Day)
            }
            _ => None,
        }
    }

    /// What Mirrorbits appends to the names of its keys: nothing, `_2026`, `_2026_11`, `_2026_11_22`.
    pub(super) fn suffix(self) -> String {
        match self {
            Period::AllTime => String::new(),
            Period::Year(year) => format!("_{year:04}"),
            Period::Month(year, month) => format!("_{year:04}_{:02}", u8::from(month)),
            Period::Day(day) => format!("_{:04}_{:02}_{:02}", day.year(), u8::from(day.month()), day.day()),
        }
    }

    /// The period of a suffix; `None` when it is none.
    pub(super) fn from_suffix(suffix: &str) -> Option<Period> {
        if suffix.is_empty() {
            return Some(Period::AllTime);
        }
        let period = Period::from_number(suffix.replace('_', "").parse().ok()?)?;
        (period.suffix() == suffix).then_some(period)
    }
}

/// UTC days from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateRange {
    /// The first day.
    pub first: Date,
    /// The last day; when it is before the first, the range is empty.
    pub last: Date,
}

impl DateRange {
    /// The fewest periods that make up the range, in order: whole years, whole months, days.
    pub fn periods(self) -> Vec<Period> {
        let mut periods = Vec::new();
        let mut next = Some(self.first);
        while let Some(day) = next.filter(|day| *day <= self.last) {
            let (period, end) = self.longest_from(day);
            periods.push(period);
            next = end.next_day();
        }
        periods
    }

    /// The longest period that starts on `day` and ends within the range, with its last day.
    fn longest_from(self, day: Date) -> (Period, Date) {
        let (year, month) = (day.year(), day.month());
        let end_of = |month: Month| Date::from_calendar_date(year, month, month.length(year));
        let year_end = end_of(Month::December).ok().filter(|end| day.ordinal() == 1 && *end <= self.last);
        let month_end = end_of(month).ok().filter(|end| day.day() == 1 && *end <= self.last);
        match (year_end, month_end) {
            (Some(end), _) => (Period::Year(year), end),
            (None, Some(end)) => (Period::Month(year, month), end),
            (None, None) => (Period::Day(day), day),
        }
    }
}

/// The periods of a range; without a range, all time.
pub(super) fn periods(range: Option<DateRange>) -> Vec<Period> {
    range.map_or_else(|| vec![Period::AllTime], DateRange::periods)
}

/// Downloads of one file up to a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileDownloads {
    /// On that day.
    pub day: u64,
    /// In its month.
    pub month: u64,
    /// In its year.
    pub year: u64,
    /// Since ever.
    pub all_time: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(year: i32, month: u8, day: u8) -> Date {
        Date::from_calendar_date(year, Month::try_from(month).unwrap(), day).unwrap()
    }

    fn numbers(first: Date, last: Date) -> Vec<i64> {
        DateRange { first, last }.periods().into_iter().map(Period::number).collect()
    }

    #[test]
    fn a_range_takes_the_fewest_periods() {
        assert_eq!(numbers(date(2024, 1, 1), date(2025, 12, 31)), [2024, 2025]);
        assert_eq!(numbers(date(2024, 2, 1), date(2024, 2, 29)), [202_402]);
        assert_eq!(numbers(date(2023, 2, 1), date(2023, 2, 27)).len(), 27);
        assert_eq!(numbers(date(2022, 11, 30), date(2024, 2, 1)), [20_221_130, 202_212, 2023, 202_401, 20_240_201]);
        assert_eq!(numbers(date(2026, 11, 22), date(2026, 11, 22)), [20_261_122]);
        assert_eq!(numbers(date(2026, 11, 22), date(2026, 11, 21)), Vec::<i64>::new());
    }

    #[test]
    fn keys_end_as_those_of_mirrorbits() {
        let suffixes = Period::containing(date(2026, 3, 7)).map(Period::suffix);
        assert_eq!(suffixes, ["_2026_03_07", "_2026_03", "_2026", ""]);
        for other in ["_26", "_2026_13", "_2026_02_30", "_2026_1", "2026", "_x", "_2026_01_01_01"] {
            assert_eq!(Period::from_suffix(other), None, "{other}");
        }
    }

    #[test]
    fn periods_are_read_as_people_write_them() {
        assert_eq!(Period::from_text("2026"), Some(Period::Year(2026)));
        assert_eq!(Period::from_text("2026-11"), Some(Period::Month(2026, Month::November)));
        assert_eq!(Period::from_text("2026-11-22"), Some(Period::Day(date(2026, 11, 22))));
        for none in ["", "-", "2026-", "2026-13", "2026-11-31", "2026_11", "26-11", "20261122", "2026-11-22-1"] {
            assert_eq!(Period::from_text(none), None, "{none}");
        }
    }

    #[test]
    fn the_newest_days_and_months_are_kept() {
        let today = date(2026, 11, 22);
        let retention = StatsRetention { days: Some(2), months: Some(12) };
        let dropped = |period: Period| period.is_dropped(retention, today);
        assert!(!dropped(Period::Day(today)) && !dropped(Period::Day(date(2026, 11, 21))));
        assert!(dropped(Period::Day(date(2026, 11, 20))));
        assert!(!dropped(Period::Month(2025, Month::December)) && dropped(Period::Month(2025, Month::November)));
        assert!(!dropped(Period::Year(1999)) && !dropped(Period::AllTime));
        assert!(!dropped(Period::Day(date(2030, 1, 1))), "a clock that was ahead");
        assert!(!Period::Day(date(1999, 1, 1)).is_dropped(StatsRetention::default(), today));
    }

    proptest! {
        #[test]
        fn periods_keep_their_numbers_and_suffixes(year in 1000..9999_i32, ordinal in 1..=365_u16) {
            for period in Period::containing(Date::from_ordinal_date(year, ordinal).unwrap()) {
                prop_assert_eq!(Period::from_number(period.number()), Some(period));
                prop_assert_eq!(Period::from_suffix(&period.suffix()), Some(period));
            }
        }

        #[test]
        fn the_periods_of_a_range_cover_each_day_once(start in 0..4000_i32, days in 0..1500_i32) {
            let first = Date::from_julian_day(2_459_000 + start).unwrap();
            let last = Date::from_julian_day(2_459_000 + start + days).unwrap();
            let periods = DateRange { first, last }.periods();
            let mut day = first;
            let mut covered = 0;
            while day <= last {
                let holding = Period::containing(day);
                prop_assert_eq!(periods.iter().filter(|period| holding.contains(period)).count(), 1);
                covered += 1;
                day = day.next_day().unwrap();
            }
            prop_assert_eq!(covered, days + 1);
        }
    }
}
