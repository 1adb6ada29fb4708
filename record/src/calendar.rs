//! Days and dates of the Gregorian calendar, also before it was introduced.
//!
//! Years are counted from March here, so that the leap day is the last of its year and every month before it begins at the same day
//! of its year: `(153 m + 2) / 5` for the month `m` after March. The method is Howard Hinnant's, "chrono-Compatible Low-Level Date
//! Algorithms". It is meant for days of times in nanoseconds and of PostgreSQL's dates; days beyond a million years are not.

/// Days from 1 March of the year 0 to 1 January 1970.
const EPOCH_DAYS: i64 = 719_468;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// A date. The year before 1 is 0, as astronomers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// The year.
    pub year: i64,
    /// The month, from 1.
    pub month: i64,
    /// The day of the month, from 1.
    pub day: i64,
}

impl Date {
    /// The date of a day, counted from 1970-01-01.
    ///
    /// ```
    /// use beeacon_record::calendar::Date;
    ///
    /// assert_eq!(Date::of_day(20_458), Date { year: 2026, month: 1, day: 5 });
    /// ```
    #[inline]
    pub fn of_day(days: i64) -> Date {
        let shifted = days + EPOCH_DAYS;
        let (era, of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Date { year, month, day: of_year - (153 * from_march + 2) / 5 + 1 }
    }

    /// The day of this date, counted from 1970-01-01. A day of the month that the month does not have is one of the next month.
    ///
    /// ```
    /// use beeacon_record::calendar::Date;
    ///
    /// assert_eq!(Date { year: 2026, month: 1, day: 5 }.day_number(), 20_458);
    /// ```
    #[inline]
    pub fn day_number(self) -> i64 {
        let Date { year, month, day } = self;
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - EPOCH_DAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(year: i64, month: i64, day: i64) -> Date {
        Date { year, month, day }
    }

    /// Day by day through more than the 400 years after which everything repeats, by the rule that everybody knows.
    #[test]
    fn every_day_is_the_one_after_the_day_before() {
        let mut expected = date(1580, 1, 1);
        let first = expected.day_number();
        for number in first..first + 2 * ERA_DAYS {
            assert_eq!(Date::of_day(number), expected);
            assert_eq!(expected.day_number(), number);
            let is_leap = expected.year % 4 == 0 && (expected.year % 100 != 0 || expected.year % 400 == 0);
            let last = match expected.month {
                2 => 28 + i64::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (expected.day == last, expected.month) {
                (false, _) => Date { day: expected.day + 1, ..expected },
                (true, 12) => date(expected.year + 1, 1, 1),
                (true, month) => date(expected.year, month + 1, 1),
            };
        }
    }

    #[test]
    fn well_known_days_have_their_numbers() {
        let table = [
            (0, date(1970, 1, 1)),
            (-1, date(1969, 12, 31)),
            (10_957, date(2000, 1, 1)),
            (11_016, date(2000, 2, 29)),
            (-719_468, date(0, 3, 1)),
            (-719_529, date(-1, 12, 31)),
            (2_932_896, date(9999, 12, 31)),
        ];
        for (number, expected) in table {
            assert_eq!(Date::of_day(number), expected, "{number}");
            assert_eq!(expected.day_number(), number, "{expected:?}");
        }
    }
}
