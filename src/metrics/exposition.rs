//! The forms in which metrics are handed out, and which of them whoever asks likes best.

/// A form of all metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0, which has units and exemplars.
    OpenMetrics,
}

impl Exposition {
    /// The form that an `Accept` field asks for. OpenMetrics only by its name: whoever takes
    /// anything gets what everything reads.
    #[must_use]
    pub fn preferred(accept: &str) -> Self {
        let (mut text, mut open_metrics) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (Some(WEIGHT_MAX), None);
            for parameter in parts {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = read_weight(value.trim()),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            // A weight that is none takes its range out.
            let weight = weight.unwrap_or_default();
            match (media.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => {
                    open_metrics = open_metrics.max(weight);
                }
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => {
                    text = text.max(weight);
                }
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The weight of what has none, in thousandths.
const WEIGHT_MAX: u32 = 1_000;

/// A weight in thousandths, as RFC 9110 §12.4.2 spells it.
fn read_weight(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_fraction = rest.len() <= 3 && rest.bytes().all(|b| b.is_ascii_digit());
    let thousandths = format!("{rest:0<3}").parse::<u32>().ok().filter(|_| is_fraction)?;
    match whole {
        "0" => Some(thousandths),
        "1" => (thousandths == 0).then_some(WEIGHT_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_given() {
        use Exposition::{OpenMetrics, Text};
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("text/html, application/json;q=0.9", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0", OpenMetrics),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", OpenMetrics),
            ("Application/OpenMetrics-Text;VERSION=\"1.0.0\"", OpenMetrics),
            // Prometheus 2.42 and 3.0, and a scraper of before OpenMetrics.
            (
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Text),
            // Of a version that there is none of here.
            ("application/openmetrics-text; version=0.0.1", Text),
            ("application/openmetrics-text; version=2.0.0, text/plain; q=0.1", Text),
            // By weight.
            ("application/openmetrics-text; q=0.3, text/plain; q=0.4", Text),
            ("application/openmetrics-text; q=0.4, text/plain; q=0.399", OpenMetrics),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text; q=0", Text),
            ("application/openmetrics-text; q=0.000, */*", Text),
            ("application/openmetrics-text; q=1.000", OpenMetrics),
            // Weights that are none.
            ("application/openmetrics-text; q=2", Text),
            ("application/openmetrics-text; q=1.001", Text),
            ("application/openmetrics-text; q=0.1234", Text),
            ("application/openmetrics-text; q=", Text),
            ("application/openmetrics-text; q=-1", Text),
            ("application/openmetrics-text; q=0.+1", Text),
            (";;,,=;q", Text),
        ] {
            assert_eq!(Exposition::preferred(accept), expected, "{accept}");
        }
    }
}
