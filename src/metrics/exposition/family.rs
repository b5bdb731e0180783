//! Families of samples, in the types of the Prometheus client.

use hdrhistogram::Histogram;
use mb_core::foreign_text::ForeignText;
use prometheus::proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType, Quantile};

/// Names and values of a sample's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Longest label value in bytes that is shown whole; no sensible name of a mirror is longer.
const LABEL_MAX: usize = 100;
const NANOSECONDS: f64 = 1e9;

/// `text`, or as much of its start as a label may have.
pub(super) fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(LABEL_MAX);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

/// The families of a page, in the order of their making. One without a sample is left out.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.0
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let samples = samples.into_iter().map(|(labels, value)| {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            let mut metric = metric(labels);
            metric.set_counter(counter);
            metric
        });
        self.add(name, help, MetricType::COUNTER, samples.collect());
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let samples = samples.into_iter().map(|(labels, value)| {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            let mut metric = metric(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.add(name, help, MetricType::GAUGE, samples.collect());
    }

    /// A histogram with these upper bounds, in seconds and ascending, of durations in nanoseconds whose exact sum is `sum`.
    pub(super) fn histogram(&mut self, name: &str, help: &str, durations: &Histogram<u64>, sum: u64, bounds: &[f64]) {
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(durations.len());
        histogram.set_sample_sum(sum as f64 / NANOSECONDS);
        let mut recorded = durations.iter_recorded().peekable();
        let mut count = 0;
        let buckets = bounds.iter().map(|&bound| {
            while let Some(step) = recorded.next_if(|step| step.value_iterated_to() as f64 <= bound * NANOSECONDS) {
                count += step.count_since_last_iteration();
            }
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        let mut metric = metric(Labels::new());
        metric.set_histogram(histogram);
        self.add(name, help, MetricType::HISTOGRAM, vec![metric]);
    }

    /// Quantiles of `recent` durations in nanoseconds, not a number while there are none, with sum and count of all.
    pub(super) fn summary(
        &mut self,
        name: &str,
        help: &str,
        recent: &Histogram<u64>,
        (sum, count): (u64, u64),
        quantiles: &[f64],
    ) {
        let mut summary = proto::Summary::default();
        summary.set_sample_count(count);
        summary.set_sample_sum(sum as f64 / NANOSECONDS);
        let quantiles = quantiles.iter().map(|&quantile| {
            let mut shown = Quantile::default();
            shown.set_quantile(quantile);
            let nanoseconds = (!recent.is_empty()).then(|| recent.value_at_quantile(quantile) as f64);
            shown.set_value(nanoseconds.map_or(f64::NAN, |nanoseconds| nanoseconds / NANOSECONDS));
            shown
        });
        summary.set_quantile(quantiles.collect());
        let mut metric = metric(Labels::new());
        metric.set_summary(summary);
        self.add(name, help, MetricType::SUMMARY, vec![metric]);
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) {
        if samples.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(samples);
        self.0.push(family);
    }
}

fn metric(labels: Labels) -> Metric {
    let pairs = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        // Here, so that no label is left out: names of mirrors are foreign text.
        pair.set_value(ForeignText::new(&value).shown().into_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn text(families: Families) -> String {
        TextEncoder::new().encode_to_string(&families.into_families()).unwrap()
    }

    #[test]
    fn names_of_mirrors_cannot_forge_lines() {
        let mut families = Families::default();
        let hostile = "a\"} 1\nmirrorbits_ready 0\\\u{202e}\x1b[2J".to_owned();
        families.gauge("g", "Help.", [(vec![("mirror", hostile)], 1.0)]);
        families.gauge("empty", "Help.", []);
        assert_eq!(
            text(families),
            "# HELP g Help.\n# TYPE g gauge\ng{mirror=\"a\\\"} 1\\\\nmirrorbits_ready 0\\\\\\\\u{202e}\\\\x1b[2J\"} 1\n"
        );
    }

    #[test]
    fn long_names_end_between_two_characters() {
        assert_eq!(bounded("fine"), "fine");
        let long = bounded(&"ß".repeat(1000));
        assert_eq!(long.chars().count(), 51);
        assert!(long.ends_with("ß…"));
    }

    #[test]
    fn buckets_count_what_is_not_longer_than_their_bound() {
        let mut durations = crate::metrics::tally::durations().unwrap();
        for nanoseconds in [900, 900, 2_000, 7_000_000] {
            durations.record(nanoseconds).unwrap();
        }
        let mut families = Families::default();
        families.histogram("h", "Help.", &durations, 7_003_800, &[0.000_001, 0.000_01, 1.0]);
        families.summary("s", "Help.", &durations, (7_003_800, 4), &[0.5]);
        let text = text(families);
        for line in [
            "h_bucket{le=\"0.000001\"} 2",
            "h_bucket{le=\"0.00001\"} 3",
            "h_bucket{le=\"1\"} 4",
            "h_bucket{le=\"+Inf\"} 4",
            "h_sum 0.0070038",
            "h_count 4",
            "s_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let mut families = Families::default();
        families.summary("s", "Help.", &crate::metrics::tally::durations().unwrap(), (0, 0), &[0.5]);
        assert!(self::text(families).contains("s{quantile=\"0.5\"} NaN\n"));
    }
}
