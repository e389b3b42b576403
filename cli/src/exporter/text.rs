//! Metrics text of several managers, and our own, as one text. Both formats want all that is said about one family to stand
//! together, so what came from each manager is taken apart by families and put together again, with a label that says
//! which control socket it came from. What is not metrics text is refused: a scraper drops a whole page for one bad line.

use fcgi_core::manager::policy::metrics::Format;
use std::collections::HashMap;
use std::fmt::Write;

/// A page that grows family by family.
pub struct Page {
    format: Format,
    families: Vec<Family>,
    places: HashMap<String, usize>,
}

struct Family {
    /// HELP, TYPE and UNIT.
    head: String,
    samples: String,
}

impl Page {
    pub fn new(format: Format) -> Page {
        Page { format, families: Vec::new(), places: HashMap::new() }
    }

    fn family(&mut self, name: &str) -> &mut Family {
        let next = self.families.len();
        let place = *self.places.entry(name.to_owned()).or_insert(next);
        if place == next {
            self.families.push(Family { head: String::new(), samples: String::new() });
        }
        // The place is that of a family that was pushed, here or before.
        &mut self.families[place]
    }

    /// One of our own: `kind` is gauge, counter or info, `samples` are labels and a value each.
    pub fn own(&mut self, name: &str, kind: &str, help: &str, samples: &[(Vec<(&str, &str)>, f64)]) {
        if samples.is_empty() {
            return;
        }
        let open = self.format == Format::OpenMetrics;
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let (shown, kind) = match (open, kind) {
            (true, kind) => (name.to_owned(), kind),
            (false, "info") => (format!("{name}_info"), "gauge"),
            (false, kind) => (format!("{name}{suffix}"), kind),
        };
        let unit = ["seconds", "bytes"].into_iter().find(|unit| open && name.ends_with(&format!("_{unit}")));
        let mut head = format!("# HELP {shown} {help}\n# TYPE {shown} {kind}\n");
        if let Some(unit) = unit {
            head.push_str(&format!("# UNIT {shown} {unit}\n"));
        }
        let family = self.family(name);
        family.head = head;
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            // Writing to a String cannot fail.
            let _ = writeln!(family.samples, "{name}{suffix}{braces} {value}");
        }
    }

    /// All of a manager's text, each sample with `control="..."` as its first label. On a fault nothing is added.
    pub fn add(&mut self, control: &str, text: &str) -> Result<(), String> {
        let label = format!("control=\"{}\"", escape(control));
        let mut found: Vec<(String, Family)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let fault = |what: &str| Err(format!("line {} of its metrics {what}", number + 1));
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (word, name) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                match word {
                    "EOF" if name.is_empty() => break,
                    "HELP" | "TYPE" | "UNIT" if is_name(name) => {
                        let name = name.to_owned();
                        if found.last().is_none_or(|(last, _)| *last != name) {
                            found.push((name, Family { head: String::new(), samples: String::new() }));
                        }
                        if let Some((_, family)) = found.last_mut() {
                            let _ = writeln!(family.head, "{line}");
                        }
                    }
                    _ => return fault("is no HELP, TYPE or UNIT"),
                }
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let Some((_, family)) = found.last_mut() else {
                return fault("is a sample without a family");
            };
            let Some((name, labels, value)) = sample(line) else {
                return fault("is no sample");
            };
            let comma = if labels.is_empty() { "" } else { "," };
            let _ = writeln!(family.samples, "{name}{{{label}{comma}{labels}}} {value}");
        }
        for (name, new) in found {
            let family = self.family(&name);
            if family.head.is_empty() {
                family.head = new.head;
            }
            family.samples.push_str(&new.samples);
        }
        Ok(())
    }

    pub fn finish(self) -> String {
        let size = self.families.iter().map(|family| family.head.len() + family.samples.len()).sum::<usize>();
        let mut text = String::with_capacity(size + 8);
        for family in &self.families {
            text.push_str(&family.head);
            text.push_str(&family.samples);
        }
        if self.format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Name, labels and value of a line such as `name{a="b"} 1`.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    let (series, value) = line.rsplit_once(' ')?;
    value.parse::<f64>().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    (is_name(name) && are_labels(labels)).then_some((name, labels, value))
}

/// `name="value"` with commas between; the values escaped.
fn are_labels(mut labels: &str) -> bool {
    while !labels.is_empty() {
        let Some((name, rest)) = labels.split_once("=\"").filter(|(name, _)| is_name(name)) else {
            return false;
        };
        if name == "control" {
            return false;
        }
        let mut escaped = false;
        let end = rest.char_indices().find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some(rest) = end.and_then(|(at, _)| rest.get(at + 1..)) else {
            return false;
        };
        labels = match rest.strip_prefix(',') {
            Some(more) => more,
            None if rest.is_empty() => "",
            None => return false,
        };
    }
    true
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "# HELP a_total Help.\n# TYPE a_total counter\na_total{pool=\"x\"} 1\n# HELP b B.\n# TYPE b gauge\nb{pool=\"x\",l=\"},\\\"\"} 2\n";

    #[test]
    fn families_of_two_managers_stand_together_and_say_where_they_came_from() {
        let mut page = Page::new(Format::Prometheus);
        page.add("unix:/1", ONE).unwrap();
        page.add("unix:/2", &ONE.replace("} 1", "} 7")).unwrap();
        page.own("up", "gauge", "Up.", &[(vec![("control", "a\"b")], 1.0)]);
        assert_eq!(
            page.finish(),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{control=\"unix:/1\",pool=\"x\"} 1\n\
             a_total{control=\"unix:/2\",pool=\"x\"} 7\n# HELP b B.\n# TYPE b gauge\n\
             b{control=\"unix:/1\",pool=\"x\",l=\"},\\\"\"} 2\nb{control=\"unix:/2\",pool=\"x\",l=\"},\\\"\"} 2\n\
             # HELP up Up.\n# TYPE up gauge\nup{control=\"a\\\"b\"} 1\n"
        );
    }

    #[test]
    fn what_is_no_metrics_text_adds_nothing() {
        for bad in [
            "a 1\n",
            "# HELP a A.\n# TYPE a gauge\na{x=\"y} 1\n",
            "# HELP a A.\na one\n",
            "# HELP a A.\na{x=\"y\"z} 1\n",
            "# HELP a A.\na{control=\"y\"} 1\n",
            "# WHAT a\n",
            "<html>\n",
        ] {
            let mut page = Page::new(Format::OpenMetrics);
            assert!(
                page.add("c", &format!("{ONE}{bad}").replacen(ONE, if bad == "a 1\n" { "" } else { ONE }, 1)).is_err(),
                "{bad}"
            );
            assert_eq!(page.finish(), "# EOF\n", "{bad}");
        }
    }

    #[test]
    fn our_own_families_have_the_words_of_each_format() {
        let families = |format| {
            let mut page = Page::new(format);
            page.own("n", "counter", "N.", &[(vec![], 3.0)]);
            page.own("age_seconds", "gauge", "Age.", &[(vec![("t", "x")], 0.5)]);
            page.own("empty", "gauge", "E.", &[]);
            page.finish()
        };
        assert_eq!(
            families(Format::OpenMetrics),
            "# HELP n N.\n# TYPE n counter\nn_total 3\n# HELP age_seconds Age.\n# TYPE age_seconds gauge\n# UNIT age_seconds seconds\nage_seconds{t=\"x\"} 0.5\n# EOF\n"
        );
        assert!(families(Format::Prometheus).starts_with("# HELP n_total N.\n# TYPE n_total counter\nn_total 3\n"));
    }
}
