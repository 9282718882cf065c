//! The phase of a time within a period, such as the time of day.

use std::f64::consts::TAU;

use chrono::{DateTime, Datelike, Timelike, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The periods of times. A phase is continuous: 13:30 is in the middle between 13 and 14 o'clock.
/// Times with a time zone are taken in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CyclicPeriod {
    /// The minute within the hour.
    MinuteOfHour,
    /// The hour within the day.
    HourOfDay,
    /// The day within the week, from Monday.
    DayOfWeek,
    /// The day within the month, relative to the length of the month.
    DayOfMonth,
    /// The day within the year, relative to the length of the year.
    DayOfYear,
}

/// A time in the calendar.
pub(super) struct CalendarTime(DateTime<Utc>);

impl CalendarTime {
    /// Converts seconds since 1970; `None` outside of the years that the calendar supports.
    pub(super) fn new(seconds: f64) -> Option<Self> {
        let whole = seconds.floor();
        if !(-8e12..=8e12).contains(&whole) {
            return None;
        }
        let nanos = ((seconds - whole) * 1e9) as u32;
        DateTime::from_timestamp(whole as i64, nanos.min(999_999_999)).map(Self)
    }

    /// The phase within a period, from 0 to 1.
    fn phase(&self, period: CyclicPeriod) -> f64 {
        let Self(time) = self;
        let second_of_day =
            f64::from(time.num_seconds_from_midnight()) + f64::from(time.nanosecond()) / 1e9;
        let day = second_of_day / 86_400.0;
        match period {
            CyclicPeriod::MinuteOfHour => second_of_day % 3600.0 / 3600.0,
            CyclicPeriod::HourOfDay => day,
            CyclicPeriod::DayOfWeek => {
                (f64::from(time.weekday().num_days_from_monday()) + day) / 7.0
            }
            CyclicPeriod::DayOfMonth => {
                let days = f64::from(time.num_days_in_month());
                (f64::from(time.day0()) + day) / days
            }
            CyclicPeriod::DayOfYear => {
                let days = if time.date_naive().leap_year() {
                    366.0
                } else {
                    365.0
                };
                (f64::from(time.ordinal0()) + day) / days
            }
        }
    }

    /// The sine and the cosine of the phase within a period.
    pub(super) fn sine_cosine(&self, period: CyclicPeriod) -> [f64; 2] {
        let angle = self.phase(period) * TAU;
        [angle.sin(), angle.cos()]
    }
}

impl CyclicPeriod {
    /// The name of the period in pipeline files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MinuteOfHour => "minute_of_hour",
            Self::HourOfDay => "hour_of_day",
            Self::DayOfWeek => "day_of_week",
            Self::DayOfMonth => "day_of_month",
            Self::DayOfYear => "day_of_year",
        }
    }

    /// Describes the phase of a sine and a cosine, in the unit of the period.
    pub(super) fn describe(self, sine: f64, cosine: f64) -> String {
        let phase = (sine.atan2(cosine) / TAU).rem_euclid(1.0);
        let whole = match self {
            Self::MinuteOfHour => 60.0,
            Self::HourOfDay => 24.0,
            Self::DayOfWeek => 7.0,
            Self::DayOfMonth => 31.0,
            Self::DayOfYear => 366.0,
        };
        format!("{} {:.1}", self.name(), phase * whole)
    }
}
