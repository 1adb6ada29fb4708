//! US social security numbers: area, group and serial that can be given out, and no longer number around.

use std::ops::Range;

use super::is_part_of_longer_number;

pub(super) fn check(line: &[u8], span: Range<usize>) -> Option<Range<usize>> {
    let text = line.get(span.clone())?;
    if is_part_of_longer_number(line, &span, b"-.") {
        return None;
    }
    let (area, group, serial) = (text.get(..3)?, text.get(4..6)?, text.get(7..11)?);
    let area_given = area != b"000" && area != b"666" && !area.starts_with(b"9");
    (area_given && group != b"00" && serial != b"0000").then_some(span)
}

#[cfg(test)]
mod tests {
    use super::super::{judge, table};
    use super::*;

    #[test]
    fn numbers_never_given_out_are_refused() {
        table(
            check,
            &["123-45-6789", "001-01-0001", "899-99-9999"],
            &["000-45-6789", "666-45-6789", "900-45-6789", "123-00-6789", "123-45-0000"],
        );
        assert_eq!(judge(check, "7-123-45-6789", "123-45-6789"), None);
        assert_eq!(judge(check, "123-45-6789-1", "123-45-6789"), None);
    }
}
