//! Overlaps: of findings that share bytes one names the whole.
//!
//! Earliest first, then longest, then lowest precedence. The winner covers all that the others found, so nothing that any rule
//! found stays. Where the winner would leave a part readable (mask, truncate) and another would not, the other wins. Findings that are only
//! tagged do not take part.

use std::ops::Range;

use crate::action::Action;
use crate::scan::Hit;

/// What is known of a rule here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) action: Action,
    pub(crate) precedence: u32,
}

/// A stretch of text to rewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) rule: u32,
    pub(crate) line: u32,
    /// What is rewritten.
    pub(crate) covered: Range<usize>,
    /// What the winner found: the value that is hashed.
    pub(crate) value: Range<usize>,
    /// All matches, with the keys before values.
    pub(crate) matched: Range<usize>,
}

fn widen(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Sorts hits and joins those that overlap. `standing` gives each rule's action and precedence. Tagged hits are left out.
pub(crate) fn resolve(hits: &mut [Hit], standing: &[Standing], out: &mut Vec<Cluster>) {
    let of = |rule: u32| {
        // Behind the rules come known secrets, which are surer than any of them.
        let known = Standing { action: Action::Marker, precedence: 0 };
        standing.get(widen(rule)).copied().unwrap_or(known)
    };
    hits.sort_unstable_by(|a, b| {
        let order = a.start.cmp(&b.start).then(b.end.cmp(&a.end));
        order.then_with(|| of(a.rule).precedence.cmp(&of(b.rule).precedence)).then(a.rule.cmp(&b.rule))
    });
    let first = out.len();
    for hit in hits.iter().filter(|hit| of(hit.rule).action.rewrites()) {
        let span = widen(hit.start)..widen(hit.end);
        let matched = widen(hit.match_start)..widen(hit.match_end);
        match out.get_mut(first..).and_then(<[Cluster]>::last_mut) {
            Some(last) if last.line == hit.line && span.start < last.covered.end => {
                if of(hit.rule).action.hides_all() && !of(last.rule).action.hides_all() {
                    last.rule = hit.rule;
                    last.value = span.clone();
                }
                last.covered.end = last.covered.end.max(span.end);
                last.matched = last.matched.start.min(matched.start)..last.matched.end.max(matched.end);
            }
            _ => out.push(Cluster {
                rule: hit.rule,
                line: hit.line,
                covered: span.clone(),
                value: span,
                matched,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(rule: u32, start: u32, end: u32) -> Hit {
        Hit { rule, line: 0, start, end, match_start: start, match_end: end, weak: false }
    }

    fn resolved(hits: &[(u32, u32, u32)]) -> Vec<(u32, Range<usize>)> {
        let mask = Action::Mask { keep_first: 1, keep_last: 1 };
        let standing = [Action::Marker, Action::Marker, Action::Truncate, Action::Tag, mask]
            .map(|action| Standing { action, precedence: 100 });
        let mut standing = standing.to_vec();
        standing[1].precedence = 10;
        let mut hits: Vec<Hit> = hits.iter().map(|(rule, start, end)| hit(*rule, *start, *end)).collect();
        let mut out = Vec::new();
        resolve(&mut hits, &standing, &mut out);
        out.into_iter().map(|cluster| (cluster.rule, cluster.covered)).collect()
    }

    #[test]
    fn earliest_then_longest_then_precedence() {
        assert_eq!(resolved(&[(0, 5, 9), (1, 2, 4)]), [(1, 2..4), (0, 5..9)]);
        assert_eq!(resolved(&[(1, 2, 4), (0, 2, 9)]), [(0, 2..9)]);
        assert_eq!(resolved(&[(0, 2, 9), (1, 2, 9)]), [(1, 2..9)]);
    }

    #[test]
    fn what_the_loser_found_is_covered_too() {
        assert_eq!(resolved(&[(0, 2, 6), (1, 4, 9), (0, 8, 12), (1, 12, 13)]), [(0, 2..12), (1, 12..13)]);
    }

    #[test]
    fn a_winner_that_would_leave_something_readable_gives_way_and_tags_do_not_count() {
        assert_eq!(resolved(&[(2, 2, 9), (0, 4, 6)]), [(0, 2..9)]);
        assert_eq!(resolved(&[(4, 2, 9), (2, 2, 9)]), [(2, 2..9)]);
        assert_eq!(resolved(&[(3, 0, 9), (0, 4, 6)]), [(0, 4..6)]);
    }
}
