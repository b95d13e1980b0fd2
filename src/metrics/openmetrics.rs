//! The text of OpenMetrics 1.0.0, from what the registry gathers.
//!
//! Without `_created`: every counter begins with the process, which `process_start_time_seconds`
//! says once, and Prometheus would keep a further series for each.

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::exemplars::Exemplar;

/// The units that names end with, before `_total`.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Writes `families`; `exemplar` knows those of the buckets of a histogram, by the family's name,
/// the series and the number of the bucket.
pub(super) fn encode(
    families: &[MetricFamily],
    exemplar: impl Fn(&str, &Metric, usize) -> Option<Exemplar>,
) -> String {
    let mut out = String::new();
    for family in families {
        match family.get_field_type() {
            MetricType::COUNTER => {
                let name = family.name().strip_suffix("_total").unwrap_or(family.name());
                describe(&mut out, family, name, "counter");
                let sample = format!("{name}_total");
                for metric in family.get_metric() {
                    let value = number(metric.get_counter().get_value());
                    line(&mut out, &sample, metric.get_label(), None, &value);
                }
            }
            MetricType::GAUGE => {
                let (name, kind) = match family.name().strip_suffix("_info") {
                    Some(name) => (name, "info"),
                    None => (family.name(), "gauge"),
                };
                describe(&mut out, family, name, kind);
                for metric in family.get_metric() {
                    let value = number(metric.get_gauge().get_value());
                    line(&mut out, family.name(), metric.get_label(), None, &value);
                }
            }
            MetricType::HISTOGRAM => {
                describe(&mut out, family, family.name(), "histogram");
                for metric in family.get_metric() {
                    let of = |bucket| exemplar(family.name(), metric, bucket);
                    histogram(&mut out, family.name(), metric, of);
                }
            }
            // Nothing here makes one.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
    out.push_str("# EOF\n");
    out
}

/// The lines before a family's samples.
fn describe(out: &mut String, family: &MetricFamily, name: &str, kind: &str) {
    push(out, &["# TYPE ", name, " ", kind, "\n"]);
    let has = |unit: &str| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
    if let Some(unit) = UNITS.into_iter().find(|unit| has(unit)) {
        push(out, &["# UNIT ", name, " ", unit, "\n"]);
    }
    push(out, &["# HELP ", name, " "]);
    push_escaped(out, family.help());
    out.push('\n');
}

fn histogram(
    out: &mut String,
    name: &str,
    metric: &Metric,
    exemplar: impl Fn(usize) -> Option<Exemplar>,
) {
    let read: &Histogram = metric.get_histogram();
    let sample = format!("{name}_bucket");
    let finite = read.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let buckets = finite.map(|bucket| (bound(bucket.upper_bound()), bucket.cumulative_count()));
    let last = ("+Inf".to_owned(), read.get_sample_count());
    for (number, (le, count)) in buckets.chain([last]).enumerate() {
        line(out, &sample, metric.get_label(), Some(&le), &count.to_string());
        if let Some(exemplar) = exemplar(number) {
            // In place of the end of the line.
            out.pop();
            push(out, &[" # {request_id=\""]);
            push_escaped(out, &exemplar.request_id);
            let took = exemplar.took.as_secs_f64().to_string();
            let at = exemplar.at.unix_ms();
            let at = format!("{}.{:03}", at / 1000, at % 1000);
            push(out, &["\"} ", &took, " ", &at, "\n"]);
        }
    }
    let sum = number(read.get_sample_sum());
    line(out, &format!("{name}_sum"), metric.get_label(), None, &sum);
    let count = read.get_sample_count().to_string();
    line(out, &format!("{name}_count"), metric.get_label(), None, &count);
}

fn line(out: &mut String, name: &str, labels: &[LabelPair], le: Option<&str>, value: &str) {
    out.push_str(name);
    let pairs = labels.iter().map(|pair| (pair.name(), pair.value()));
    let mut separator = '{';
    for (label, text) in pairs.chain(le.map(|le| ("le", le))) {
        out.push(separator);
        push(out, &[label, "=\""]);
        push_escaped(out, text);
        out.push('"');
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    push(out, &[" ", value, "\n"]);
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
}

/// The same three characters in label values and help texts.
fn push_escaped(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(c),
        }
    }
}

/// A value: Rust writes numbers as the format has them, but for what is none.
fn number(value: f64) -> String {
    if value.is_finite() {
        return value.to_string();
    }
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    };
    text.to_owned()
}

/// A bucket's bound in the one form that the format wants it in, since it becomes a label: as Go
/// writes it, with a digit behind the point.
fn bound(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = value.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrayvec::ArrayString;
    use prometheus::core::Collector as _;
    use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounter, Opts};

    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn bounds_are_spelt_canonically() {
        for (value, expected) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (60.0, "60.0"),
            (2.5, "2.5"),
            (0.0001, "0.0001"),
            (0.00025, "0.00025"),
            (0.00001, "1e-05"),
            (0.000_002_5, "2.5e-06"),
            (5e-7, "5e-07"),
            (1e-10, "1e-10"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1.5e10, "1.5e+10"),
        ] {
            assert_eq!(bound(value), expected);
        }
    }

    #[test]
    fn a_text_is_whole() {
        let counter = IntCounter::new("x_bytes_total", "Bytes\nof \"x\\y\".").unwrap();
        counter.inc_by(7);
        let gauge = GaugeVec::new(Opts::new("x_age_seconds", "Age."), &["of"]).unwrap();
        gauge.with_label_values(&["a\"b\\c\nd"]).set(f64::INFINITY);
        gauge.with_label_values(&["e"]).set(-0.25);
        gauge.with_label_values(&["f"]).set(f64::NAN);
        let info = GaugeVec::new(Opts::new("x_info", "What it is."), &["version"]).unwrap();
        info.with_label_values(&["1"]).set(1.0);
        let opts = HistogramOpts::new("x_duration_seconds", "Time.").buckets(vec![1e-5, 1.0]);
        let histogram = HistogramVec::new(opts, &["of"]).unwrap();
        histogram.with_label_values(&["y"]).observe(0.5);
        histogram.with_label_values(&["y"]).observe(2.0);
        let families: Vec<MetricFamily> =
            [counter.collect(), gauge.collect(), info.collect(), histogram.collect()].concat();
        let text = encode(&families, |name, metric, bucket| {
            assert_eq!((name, metric.get_label()[0].value()), ("x_duration_seconds", "y"));
            (bucket == 1).then(|| Exemplar {
                request_id: ArrayString::from("00ff").unwrap(),
                took: Duration::from_millis(500),
                at: Timestamp::from_unix_ms(1_700_000_000_042),
            })
        });
        let with_exemplar = [
            r#"x_duration_seconds_bucket{of="y",le="1.0"} 1"#,
            r#"# {request_id="00ff"} 0.5 1700000000.042"#,
        ]
        .join(" ");
        let mut lines: Vec<&str> = text.lines().collect();
        // The order of a family's series is the library's to choose.
        lines[7..10].sort_unstable();
        assert_eq!(
            lines,
            [
                "# TYPE x_bytes counter",
                "# UNIT x_bytes bytes",
                r#"# HELP x_bytes Bytes\nof \"x\\y\"."#,
                "x_bytes_total 7",
                "# TYPE x_age_seconds gauge",
                "# UNIT x_age_seconds seconds",
                "# HELP x_age_seconds Age.",
                r#"x_age_seconds{of="a\"b\\c\nd"} +Inf"#,
                r#"x_age_seconds{of="e"} -0.25"#,
                r#"x_age_seconds{of="f"} NaN"#,
                "# TYPE x info",
                "# HELP x What it is.",
                r#"x_info{version="1"} 1"#,
                "# TYPE x_duration_seconds histogram",
                "# UNIT x_duration_seconds seconds",
                "# HELP x_duration_seconds Time.",
                r#"x_duration_seconds_bucket{of="y",le="1e-05"} 0"#,
                &with_exemplar,
                r#"x_duration_seconds_bucket{of="y",le="+Inf"} 2"#,
                r#"x_duration_seconds_sum{of="y"} 2.5"#,
                r#"x_duration_seconds_count{of="y"} 2"#,
                "# EOF",
            ]
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
