//! The date in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    (SystemTime::now().duration_since(UNIX_EPOCH)).map_or(0, |d| d.as_secs())
}

/// Year, month, day, hour, minute and second in UTC, for seconds since 1970 (days to a date after
/// Hinnant's `civil_from_days`: years counted from March, so that the leap day comes last).
pub(crate) fn utc(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    [year, month, date, rest / 3_600, rest / 60 % 60, rest % 60]
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(utc(0), [1970, 1, 1, 0, 0, 0]);
        assert_eq!(utc(951_782_400), [2000, 2, 29, 0, 0, 0]);
        assert_eq!(utc(1_709_251_199), [2024, 2, 29, 23, 59, 59]);
        assert_eq!(utc(1_735_689_600), [2025, 1, 1, 0, 0, 0]);
    }
}
