//! A kubelet's `/metrics/resource`: Prometheus' text format, of which the samples named here are taken.

use std::collections::HashMap;

/// What a container, pod or node had used at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Seconds of CPU since it began.
    pub cpu_seconds: f64,
    /// When that was read, milliseconds since 1970.
    pub at_ms: i64,
    pub memory_bytes: f64,
    /// When it began, milliseconds since 1970; 0 when nobody says.
    pub started_ms: i64,
}

/// One kubelet's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scrape {
    pub node: Option<Point>,
    /// By namespace, pod and container.
    pub containers: HashMap<(String, String, String), Point>,
}

/// Reads the text; lines that are none of ours are skipped. A point without CPU or memory is left out.
pub(crate) fn parse(text: &str) -> Scrape {
    let mut scrape = Scrape::default();
    let (mut node, mut node_cpu, mut node_memory) = (Point::default(), false, false);
    let mut seen: HashMap<(String, String, String), (bool, bool)> = HashMap::new();
    for line in text.lines() {
        let Some(sample) = Sample::parse(line) else { continue };
        let key = || {
            let of = |name: &str| sample.label(name).unwrap_or_default();
            (of("namespace"), of("pod"), of("container"))
        };
        match sample.name {
            "node_cpu_usage_seconds_total" => {
                (node.cpu_seconds, node.at_ms, node_cpu) = (sample.value, sample.at_ms, true);
            }
            "node_memory_working_set_bytes" => (node.memory_bytes, node_memory) = (sample.value, true),
            "container_cpu_usage_seconds_total" => {
                let key = key();
                seen.entry(key.clone()).or_default().0 = true;
                let point = scrape.containers.entry(key).or_default();
                (point.cpu_seconds, point.at_ms) = (sample.value, sample.at_ms);
            }
            "container_memory_working_set_bytes" => {
                let key = key();
                seen.entry(key.clone()).or_default().1 = true;
                scrape.containers.entry(key).or_default().memory_bytes = sample.value;
            }
            "container_start_time_seconds" => {
                scrape.containers.entry(key()).or_default().started_ms = (sample.value * 1000.0) as i64;
            }
            _ => {}
        }
    }
    scrape.containers.retain(|key, _| seen.get(key) == Some(&(true, true)));
    scrape.node = (node_cpu && node_memory).then_some(node);
    scrape
}

struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
    at_ms: i64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        if name.starts_with('#') {
            return None;
        }
        // Names of Kubernetes' objects have neither quotes nor braces.
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => ("", rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let at_ms = words.next().map_or(Some(0), |word| word.parse().ok())?;
        value.is_finite().then_some(Sample { name, labels, value, at_ms })
    }

    fn label(&self, name: &str) -> Option<String> {
        let mut pairs = self.labels.split(',').filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(known, _)| *known == name)?;
        Some(value.trim_matches('"').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelets_answer() {
        let text = "# HELP x y\n# TYPE container_cpu_usage_seconds_total counter\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.5 2000\n\
            container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.048576e+06 2000\n\
            container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"p\"} 1.25\n\
            container_cpu_usage_seconds_total{container=\"half\",namespace=\"ns\",pod=\"p\"} 1 2000\n\
            node_cpu_usage_seconds_total 7 3000\nnode_memory_working_set_bytes 9 3000\n\
            node_memory_working_set_bytes NaN 1\nbroken{ 1\n\nresource_scrape_error 0\n";
        let scrape = parse(text);
        let point = Point { cpu_seconds: 1.5, at_ms: 2000, memory_bytes: 1_048_576.0, started_ms: 1250 };
        assert_eq!(scrape.containers, [(("ns".into(), "p".into(), "c".into()), point)].into());
        assert_eq!(scrape.node, Some(Point { cpu_seconds: 7.0, at_ms: 3000, memory_bytes: 9.0, started_ms: 0 }));
        assert_eq!(parse("node_cpu_usage_seconds_total 7 3000\n"), Scrape::default());
    }
}
