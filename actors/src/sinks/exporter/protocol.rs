//! Converts samples to the types that Prometheus' encoder takes.

use super::{
    event_samples::HistogramSample,
    families::{Family, Kind, Reader},
    samples::{Sample, Source},
};
use policies::histogram::Histogram;
use prometheus::proto;

/// Reads the samples of one metric; returns `None` if there are none, since the text format has no empty families.
pub(super) fn metric_family(family: &Family, source: &Source) -> Option<proto::MetricFamily> {
    let metrics: Vec<_> = match family.read {
        Reader::Counter(read) => {
            let metric = |sample| counter(family, sample);
            read(source).into_iter().map(metric).collect()
        }
        Reader::Gauge(read) => {
            let metric = |sample| gauge(family, sample);
            read(source).into_iter().map(metric).collect()
        }
        Reader::Histogram(read) => {
            let metric = |sample| histogram(family, sample);
            read(source).into_iter().map(metric).collect()
        }
    };
    if metrics.is_empty() {
        return None;
    }
    let mut out = proto::MetricFamily::default();
    out.set_name(family.name.to_owned());
    out.set_help(family.help.to_owned());
    out.set_field_type(match family.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    out.set_metric(metrics);
    Some(out)
}

/// Returns a metric with these values of its family's labels.
fn metric(family: &Family, values: Vec<String>) -> proto::Metric {
    let pair = |(name, value): (&&str, String)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value);
        pair
    };
    proto::Metric::from_label(family.labels.iter().zip(values).map(pair).collect())
}

fn counter(family: &Family, (labels, number): Sample) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(number);
    let mut metric = metric(family, labels);
    metric.set_counter(counter);
    metric
}

fn gauge(family: &Family, (labels, number): Sample) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(number);
    let mut metric = metric(family, labels);
    metric.set_gauge(gauge);
    metric
}

fn histogram(family: &Family, (labels, durations): HistogramSample) -> proto::Metric {
    let mut metric = metric(family, labels);
    metric.set_histogram(buckets(&durations));
    metric
}

fn buckets(durations: &Histogram) -> proto::Histogram {
    let bucket = |(bound, count): (std::time::Duration, u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(durations.buckets().map(bucket).collect());
    histogram.set_sample_count(durations.count());
    histogram.set_sample_sum(durations.sum().as_secs_f64());
    histogram
}
