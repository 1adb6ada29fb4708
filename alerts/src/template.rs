//! The templates of labels and annotations: text with places, as rule files of Prometheus and Loki have them.
//!
//! A place is `{{ $labels.service }}`, `{{ $labels["service"] }}`, `{{ index $labels "service" }}`, `{{ $value }}`,
//! `{{ $externalLabels.x }}` or their dotted forms `{{ .Labels.service }}`, `{{ .Value }}`, with any number of the functions
//! below behind `|`. There are no conditions, loops or variables: what needs them is the text of a message, and that is made
//! from a receiver's template. A place that says something else is a fault of the file, found when it is read.
//!
//! What always holds: work and output are bounded by the template and the labels; what a label holds is never read as a
//! template; control characters of a value come out as `\u{FFFD}`, so that no terminal obeys a log.

use thiserror::Error;

use crate::labels::Labels;
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_PLACES_MAX};

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("a place opened with {{{{ is not closed with }}}}")]
    Open,
    /// A place says something that is not known.
    #[error(
        "cannot read {{{{ {0} }}}}: write $labels.NAME, $value or $externalLabels.NAME, and behind | one of {FUNCTIONS}"
    )]
    Place(String),
    /// Too long, or too many places.
    #[error(
        "a template has at most {TEMPLATE_BYTES_MAX} bytes and {TEMPLATE_PLACES_MAX} places, this one has {bytes} and {places}"
    )]
    Large {
        /// Its bytes.
        bytes: usize,
        /// Its places.
        places: usize,
    },
}

const FUNCTIONS: &str = "humanize, humanize1024, humanizeDuration, humanizePercentage, humanizeTimestamp, \
                         printf \"%.Nf\", toUpper, toLower, title, stripPort";

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Place(Source, Vec<Function>),
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    Label(String),
    ExternalLabel(String),
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Humanize,
    Humanize1024,
    HumanizeDuration,
    HumanizePercentage,
    HumanizeTimestamp,
    Fixed(usize),
    Exponent(usize),
    General,
    ToUpper,
    ToLower,
    Title,
    StripPort,
}

/// What the places of a template speak of.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The labels of the row.
    pub labels: &'a Labels,
    /// The labels of this server.
    pub external_labels: &'a Labels,
    /// The value of the row.
    pub value: f64,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// When a place is not closed or says something unknown, or the template is too large.
    pub fn read(text: &str) -> Result<Template, TemplateError> {
        let places = text.matches("{{").count();
        if text.len() > TEMPLATE_BYTES_MAX || places > TEMPLATE_PLACES_MAX {
            return Err(TemplateError::Large { bytes: text.len(), places });
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("{{") {
            let (inside, after) = split_at_close(behind).ok_or(TemplateError::Open)?;
            // `{{-` and `-}}` take the white space beside them away, as in Go.
            let (inside, trim_before) = match inside.strip_prefix("- ") {
                Some(inside) => (inside, true),
                None => (inside, false),
            };
            let (inside, trim_after) = match inside.strip_suffix(" -") {
                Some(inside) => (inside, true),
                None => (inside, false),
            };
            let before = if trim_before { before.trim_end() } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(read_place(inside.trim())?);
            rest = if trim_after { after.trim_start() } else { after };
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// The text, with its places filled and cut to a length on a character's edge.
    #[must_use]
    pub fn render(&self, scope: Scope<'_>, bytes_max: usize) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Place(source, functions) => {
                    let first = match source {
                        Source::Label(name) => Datum::Text(scope.labels.value(name).to_owned()),
                        Source::ExternalLabel(name) => {
                            Datum::Text(scope.external_labels.value(name).to_owned())
                        }
                        Source::Value => Datum::Number(scope.value),
                    };
                    let last = functions.iter().fold(first, |datum, function| function.apply(datum));
                    push_plain(&mut out, &last.into_text());
                }
            }
            if out.len() > bytes_max {
                break;
            }
        }
        cut(out, bytes_max)
    }
}

/// Text up to the `}}` that closes a place, quotes minded.
fn split_at_close(text: &str) -> Option<(&str, &str)> {
    let (mut in_quotes, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            '}' if !in_quotes && text.get(at..)?.starts_with("}}") => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            _ => {}
        }
    }
    None
}

fn read_place(inside: &str) -> Result<Part, TemplateError> {
    let unknown = || TemplateError::Place(inside.chars().take(80).collect());
    let mut stages = inside.split('|').map(str::trim);
    let source = read_source(stages.next().unwrap_or("")).ok_or_else(unknown)?;
    match source {
        // `{{ printf "%.2f" $value }}`: the same as `$value | printf "%.2f"`.
        (source, Some(function)) => {
            let functions = std::iter::once(Some(function)).chain(stages.map(read_function));
            Ok(Part::Place(source, functions.collect::<Option<_>>().ok_or_else(unknown)?))
        }
        (source, None) => {
            Ok(Part::Place(source, stages.map(read_function).collect::<Option<_>>().ok_or_else(unknown)?))
        }
    }
}

fn read_source(text: &str) -> Option<(Source, Option<Function>)> {
    if let Some(source) = read_plain_source(text) {
        return Some((source, None));
    }
    // A function before its argument.
    let (function, argument) = text.rsplit_once(char::is_whitespace)?;
    Some((read_plain_source(argument)?, Some(read_function(function.trim())?)))
}

fn read_plain_source(text: &str) -> Option<Source> {
    if matches!(text, "$value" | ".Value") {
        return Some(Source::Value);
    }
    for (word, make) in [
        ("$labels", Source::Label as fn(String) -> Source),
        (".Labels", Source::Label),
        ("$externalLabels", Source::ExternalLabel),
        (".ExternalLabels", Source::ExternalLabel),
    ] {
        if let Some(behind) = text.strip_prefix(word) {
            if let Some(name) = behind.strip_prefix('.') {
                return crate::labels::is_plain_name(name).then(|| make(name.to_owned()));
            }
            let name = behind.strip_prefix("[\"")?.strip_suffix("\"]")?;
            return is_name(name).then(|| make(name.to_owned()));
        }
        if let Some(behind) = text.strip_prefix("index ").and_then(|text| text.trim().strip_prefix(word)) {
            let name = behind.trim().strip_prefix('"')?.strip_suffix('"')?;
            return is_name(name).then(|| make(name.to_owned()));
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['"', '\\'])
}

fn read_function(text: &str) -> Option<Function> {
    Some(match text {
        "humanize" => Function::Humanize,
        "humanize1024" => Function::Humanize1024,
        "humanizeDuration" => Function::HumanizeDuration,
        "humanizePercentage" => Function::HumanizePercentage,
        "humanizeTimestamp" => Function::HumanizeTimestamp,
        "toUpper" => Function::ToUpper,
        "toLower" => Function::ToLower,
        "title" => Function::Title,
        "stripPort" => Function::StripPort,
        _ => {
            let format = text.strip_prefix("printf")?.trim().strip_prefix("\"%")?.strip_suffix('"')?;
            match format {
                "f" => Function::Fixed(6),
                "e" => Function::Exponent(6),
                "g" | "v" => Function::General,
                _ => {
                    let digits = |end: char| -> Option<usize> {
                        let digits: usize = format.strip_prefix('.')?.strip_suffix(end)?.parse().ok()?;
                        (digits <= 20).then_some(digits)
                    };
                    match (digits('f'), digits('e')) {
                        (Some(digits), _) => Function::Fixed(digits),
                        (None, Some(digits)) => Function::Exponent(digits),
                        (None, None) => return None,
                    }
                }
            }
        }
    })
}

/// What goes from function to function.
enum Datum {
    Text(String),
    Number(f64),
}

impl Datum {
    fn into_text(self) -> String {
        match self {
            Datum::Text(text) => text,
            Datum::Number(number) => general(number),
        }
    }

    /// The number, also of a text that is one.
    fn number(&self) -> Option<f64> {
        match self {
            Datum::Number(number) => Some(*number),
            Datum::Text(text) => text.trim().parse().ok(),
        }
    }
}

impl Function {
    /// A function of numbers leaves a text alone that is none.
    fn apply(self, datum: Datum) -> Datum {
        if let Function::ToUpper | Function::ToLower | Function::Title | Function::StripPort = self {
            let text = datum.into_text();
            return Datum::Text(match self {
                Function::ToUpper => text.to_uppercase(),
                Function::ToLower => text.to_lowercase(),
                Function::Title => title(&text),
                _ => strip_port(&text).to_owned(),
            });
        }
        let Some(number) = datum.number() else { return datum };
        Datum::Text(match self {
            Function::Humanize => humanize(number),
            Function::Humanize1024 => humanize_1024(number),
            Function::HumanizeDuration => humanize_duration(number),
            Function::HumanizePercentage => format!("{}%", significant(number * 100.0, 4)),
            Function::HumanizeTimestamp => humanize_timestamp(number),
            Function::Fixed(digits) => finite_or(number, |number| format!("{number:.digits$}")),
            Function::Exponent(digits) => {
                finite_or(number, |number| go_exponent(&format!("{number:.digits$e}")))
            }
            _ => general(number),
        })
    }
}

fn title(text: &str) -> String {
    let mut at_start = true;
    text.chars()
        .map(|c| {
            let out = if at_start { c.to_ascii_uppercase() } else { c };
            at_start = !c.is_alphanumeric() && c != '_';
            out
        })
        .collect()
}

/// `host:9090` without its port; other text as it is.
fn strip_port(text: &str) -> &str {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match text.rsplit_once(':') {
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => {
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
        }
        _ => text,
    }
}

fn finite_or(number: f64, write: impl Fn(f64) -> String) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        write(number)
    }
}

/// A number as Go's `%v` writes it: shortest, with an exponent from 1e21 on and below 1e-4.
pub(crate) fn general(number: f64) -> String {
    finite_or(number, |number| {
        let size = number.abs();
        if size != 0.0 && !(1e-4..1e21).contains(&size) {
            go_exponent(&format!("{number:e}"))
        } else {
            format!("{number}")
        }
    })
}

/// An exponent with its sign and two digits.
fn go_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// A number with some significant digits and no zeros at its end, as Go's `%.4g`.
fn significant(number: f64, digits: usize) -> String {
    finite_or(number, |number| {
        if number == 0.0 {
            return "0".to_owned();
        }
        let scientific = format!("{number:.*e}", digits.saturating_sub(1));
        let exponent: i32 = scientific.split_once('e').and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
        let limit = i32::try_from(digits).unwrap_or(i32::MAX);
        if exponent < -4 || exponent >= limit {
            let (mantissa, _) = scientific.split_once('e').unwrap_or((&scientific, ""));
            return go_exponent(&format!("{}e{exponent}", without_end_zeros(mantissa)));
        }
        let places = usize::try_from(limit - 1 - exponent).unwrap_or(0);
        without_end_zeros(&format!("{number:.places$}")).to_owned()
    })
}

fn without_end_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn humanize(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return significant(number, 4);
    }
    let (mut number, mut unit) = (number, "");
    if number.abs() >= 1.0 {
        for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
            if number.abs() < 1000.0 {
                break;
            }
            unit = next;
            number /= 1000.0;
        }
    } else {
        for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
            if number.abs() >= 1.0 {
                break;
            }
            unit = next;
            number *= 1000.0;
        }
    }
    format!("{}{unit}", significant(number, 4))
}

fn humanize_1024(number: f64) -> String {
    let (mut number, mut unit) = (number, "");
    if number.is_finite() && number.abs() > 1.0 {
        for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
            if number.abs() < 1024.0 {
                break;
            }
            unit = next;
            number /= 1024.0;
        }
    }
    format!("{}{unit}", significant(number, 4))
}

fn humanize_duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds == 0.0 {
        return finite_or(seconds, |_| "0s".to_owned());
    }
    if seconds.abs() < 1.0 {
        return format!("{}s", humanize(seconds));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let whole = seconds.abs();
    // A float this large saturates, which is as good as any other writing of such a time.
    let total = whole as u64;
    let (days, hours, minutes) = (total / 86_400, total / 3_600 % 24, total / 60 % 60);
    let rest = total % 60;
    if days > 0 {
        format!("{sign}{days}d {hours}h {minutes}m {rest}s")
    } else if hours > 0 {
        format!("{sign}{hours}h {minutes}m {rest}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m {rest}s")
    } else {
        format!("{sign}{}s", significant(whole, 4))
    }
}

fn humanize_timestamp(seconds: f64) -> String {
    finite_or(seconds, |seconds| {
        let stamp = jiff::Timestamp::from_second(seconds as i64);
        stamp.map_or_else(
            |_| general(seconds),
            |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        )
    })
}

/// Appends text, control characters but tab and newline replaced.
/// A text without the control characters that a terminal or a header would obey.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_plain(&mut out, text);
    out
}

fn push_plain(out: &mut String, text: &str) {
    for c in text.chars() {
        let is_kept = !c.is_control() || matches!(c, '\n' | '\t');
        out.push(if is_kept && !is_direction_override(c) { c } else { '\u{FFFD}' });
    }
}

/// Characters that turn the reading direction of what stands behind them, with which a text can be made to look like another.
fn is_direction_override(c: char) -> bool {
    matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Text cut to a number of bytes, with `…` in place of the rest.
pub(crate) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let room = bytes_max.saturating_sub('…'.len_utf8());
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, value: f64) -> String {
        let labels = Labels::from_iter([("service", "checkout"), ("instance", "db:5432"), ("a.b", "dotted")]);
        let external_labels = Labels::from_iter([("site", "north")]);
        let scope = Scope { labels: &labels, external_labels: &external_labels, value };
        Template::read(text).unwrap().render(scope, 4_096)
    }

    #[test]
    fn every_way_to_write_a_place_is_read() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{{ $labels.service }} leaks", "checkout leaks"),
            ("{{$labels.service}}", "checkout"),
            ("{{ .Labels.service }}/{{ .Value }}", "checkout/1234.5"),
            ("{{ $labels[\"a.b\"] }}", "dotted"),
            ("{{ index $labels \"a.b\" }}", "dotted"),
            ("{{ $externalLabels.site }}", "north"),
            ("[{{ $labels.missing }}]", "[]"),
            ("{{ $labels.service | toUpper }}", "CHECKOUT"),
            ("{{ $labels.service | toUpper | toLower | title }}", "Checkout"),
            ("{{ $labels.instance | stripPort }}", "db"),
            ("{{ $value | printf \"%.2f\" }}", "1234.50"),
            ("{{ printf \"%.0f\" $value }}", "1234"),
            ("{{ $value | humanize }}", "1.234k"),
            ("{{ humanize $value }}!", "1.234k!"),
            ("a {{- $labels.service -}} b", "acheckoutb"),
        ] {
            assert_eq!(rendered(text, 1234.5), expected, "{text}");
        }
    }

    /// Prometheus' own results for its functions.
    #[test]
    fn numbers_are_written_as_prometheus_writes_them() {
        for (function, value, expected) in [
            ("humanize", 0.0, "0"),
            ("humanize", 1_234_567.0, "1.235M"),
            ("humanize", 0.0012, "1.2m"),
            ("humanize", f64::NAN, "NaN"),
            ("humanize", f64::INFINITY, "+Inf"),
            ("humanize1024", 1_048_576.0, "1Mi"),
            ("humanize1024", 1.5, "1.5"),
            ("humanizeDuration", 0.0, "0s"),
            ("humanizeDuration", 0.1, "100ms"),
            ("humanizeDuration", 60.0, "1m 0s"),
            ("humanizeDuration", 3_600.0, "1h 0m 0s"),
            ("humanizeDuration", 86_400.0, "1d 0h 0m 0s"),
            ("humanizeDuration", -86_399.0, "-23h 59m 59s"),
            ("humanizeDuration", 12.3456, "12.35s"),
            ("humanizePercentage", 0.1234567, "12.35%"),
            ("humanizePercentage", -0.22, "-22%"),
            ("humanizeTimestamp", 1_435_065_584.0, "2015-06-23 13:19:44 +0000 UTC"),
            ("printf \"%g\"", 1e21, "1e+21"),
            ("printf \"%.1e\"", 12_345.0, "1.2e+04"),
        ] {
            assert_eq!(
                rendered(&format!("{{{{ $value | {function} }}}}"), value),
                expected,
                "{function} of {value}"
            );
        }
        assert_eq!(rendered("{{ $value }}", 5.0), "5");
        assert_eq!(rendered("{{ $value }}", 0.00001), "1e-05");
    }

    #[test]
    fn what_is_no_place_is_a_fault_of_the_file() {
        for text in [
            "{{ $labels.service",
            "{{ }}",
            "{{ $labels }}",
            "{{ $labels. }}",
            "{{ $labels.a.b }}",
            "{{ if $value }}x{{ end }}",
            "{{ $value | query \"up\" }}",
            "{{ $value | printf \"%s %s\" }}",
            "{{ $value | printf \"%.99f\" }}",
            "{{ range $labels }}",
        ] {
            assert!(Template::read(text).is_err(), "{text}");
        }
        assert!(matches!(Template::read(&"{{ $value }}".repeat(201)), Err(TemplateError::Large { .. })));
    }

    #[test]
    fn a_value_is_neither_a_template_nor_a_terminal_command() {
        let labels = Labels::from_iter([("service", "{{ $value }}\u{1b}[31m\u{9b}2J\u{202e}\nend")]);
        let none = Labels::new();
        let scope = Scope { labels: &labels, external_labels: &none, value: 7.0 };
        let out = Template::read("{{ $labels.service }}").unwrap().render(scope, 4_096);
        assert_eq!(out, "{{ $value }}\u{FFFD}[31m\u{FFFD}2J\u{FFFD}\nend");
    }

    #[test]
    fn output_is_cut_on_the_edge_of_a_character() {
        let labels = Labels::from_iter([("s", "ü".repeat(100))]);
        let none = Labels::new();
        let scope = Scope { labels: &labels, external_labels: &none, value: 0.0 };
        for bytes_max in 3..20 {
            let out = Template::read("{{ $labels.s }}").unwrap().render(scope, bytes_max);
            assert!(out.len() <= bytes_max && out.ends_with('…'), "{out}");
        }
    }
}
