//! Geographical coordinates: no further than a pole or the antimeridian.

use std::ops::Range;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = std::str::from_utf8(line.get(span.clone())?).ok()?;
    let within = |part: &str| part.trim().parse::<f64>().is_ok_and(|degrees| degrees.abs() <= 180.0);
    text.split(',').all(within).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn degrees_are_on_the_globe() {
        table(check, &["47.376887", "-8.5417", "47.376887, 8.541694"], &["947.3768", "47.3768,181.0001"]);
    }
}
