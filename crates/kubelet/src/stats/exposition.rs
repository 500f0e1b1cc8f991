//! Prometheus' text format, for series that are read anew each time somebody asks.

use std::fmt::Write;

use jiff::Timestamp;

/// A text under construction. Samples of one family must follow one another.
#[derive(Default)]
pub(crate) struct Exposition {
    text: String,
    family: &'static str,
}

/// What a family's values mean.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

impl Exposition {
    /// Begins a family. It is left out of the text until it has a sample.
    pub(crate) fn family<'a>(&'a mut self, name: &'static str, help: &'static str, kind: Kind) -> Family<'a> {
        Family { exposition: self, name, help, kind }
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// A family whose samples are being written.
pub(crate) struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

impl Family<'_> {
    /// Adds a sample. With a time the scraper takes that instead of its own.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        let Exposition { text, family } = self.exposition;
        if *family != self.name {
            *family = self.name;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name);
        }
        text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{name}=\"", if index == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = write!(text, " {value}");
        if let Some(at) = at {
            let _ = write!(text, " {}", at.as_millisecond());
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_samples() {
        let mut exposition = Exposition::default();
        let at = Timestamp::from_millisecond(1234).unwrap();
        exposition.family("unused", "No sample", Kind::Gauge);
        let mut family = exposition.family("a_total", "A", Kind::Counter);
        family.sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 1.5, Some(at));
        family.sample(&[], 10_000_000_000.0, None);
        exposition.family("b", "B", Kind::Gauge).sample(&[], 0.0, None);
        let expected = "# HELP a_total A\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 1.5 1234\n\
                        a_total 10000000000\n# HELP b B\n# TYPE b gauge\nb 0\n";
        assert_eq!(exposition.finish(), expected);
    }
}
