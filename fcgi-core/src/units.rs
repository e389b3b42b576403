//! Durations and sizes as people write them, the same everywhere: `250ms`, `5s`, `2m`, `64M`.
//!
//! A bare number is seconds or bytes. Sizes count in 1024. A fraction is allowed where a larger unit is written
//! (`0.5s`, `1.5G`); what is smaller than a millisecond or a byte is an error, never rounded away to nothing.

use crate::error::{Code, Coded};

/// A duration or size that does not parse.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{input:?} is not a {what}: {reason}; write {example}")]
pub struct UnitError {
    /// What was given.
    pub input: String,
    /// `duration` or `size`.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
    /// Forms that are right.
    pub example: &'static str,
}

impl Coded for UnitError {
    fn code(&self) -> Code {
        Code::InvalidOption
    }
}

struct Kind {
    what: &'static str,
    example: &'static str,
    /// Suffix and its factor; the first entry is that of a bare number.
    units: &'static [(&'static str, u64)],
}

const DURATION: Kind = Kind {
    what: "duration",
    example: "250ms, 5s, 2m or 1h (a bare number is seconds)",
    units: &[("", 1000), ("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
};

const SIZE: Kind = Kind {
    what: "size",
    example: "65536, 64K, 64M or 2G (a bare number is bytes)",
    units: &[("", 1), ("b", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("t", 1 << 40)],
};

/// Milliseconds of `250ms`, `5s`, `1.5m`, `2h`, `1d`, or a bare number of seconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    parse(text, &DURATION)
}

/// Bytes of `512`, `64K`, `64M`, `1.5G`, `1T` (any case, optionally followed by `B` or `iB`).
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZE)
}

fn parse(text: &str, kind: &Kind) -> Result<u64, UnitError> {
    let fault = |reason| UnitError { input: text.to_owned(), what: kind.what, reason, example: kind.example };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, suffix) = trimmed.split_at(digits);
    if number.is_empty() {
        return Err(fault(if trimmed.starts_with('-') { "it is negative" } else { "it does not start with a digit" }));
    }
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let suffix = match (kind.what, suffix.as_str()) {
        ("size", longer) if longer.len() > 1 => {
            longer.strip_suffix("ib").or(longer.strip_suffix('b')).unwrap_or(longer)
        }
        (_, short) => short,
    };
    let factor = kind.units.iter().find(|(name, _)| *name == suffix).map(|(_, factor)| *factor);
    let factor = factor.ok_or_else(|| fault("its unit is not known"))?;

    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(fault("its number does not parse"));
    }
    let whole: u64 = match whole {
        "" => 0,
        digits => digits.parse().map_err(|_| fault("it is too large"))?,
    };
    let mut value = whole.checked_mul(factor).ok_or_else(|| fault("it is too large"))?;
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        // 12 digits are far below a byte of a terabyte; with them the product stays within u128.
        let precise: u128 =
            fraction.get(..12).unwrap_or(fraction).parse().map_err(|_| fault("its number does not parse"))?;
        let scale = 10u128.pow(fraction.len().min(12) as u32);
        let part = precise * u128::from(factor) / scale;
        value = u64::try_from(part).ok().and_then(|p| value.checked_add(p)).ok_or_else(|| fault("it is too large"))?;
        if value == 0 {
            return Err(fault("it is below the smallest unit"));
        }
    }
    Ok(value)
}

/// A duration in the largest unit that holds it exactly, so that [`parse_duration_ms`] reads the same value back.
pub fn format_duration_ms(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        _ if ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        _ if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        _ if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        _ if ms % 1000 == 0 => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// An age for people, to the second but for the first ten: `0.4s`, `8.5s`, `59s`, `2m05s`, `3h07m`, `5d04h`.
pub fn format_age_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=9 => format!("{seconds}.{}s", ms % 1000 / 100),
        10..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A size in the largest unit that holds it exactly, so that [`parse_size`] reads the same value back.
pub fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// A measured time for people, three figures at most: `0.412 ms`, `41.2 ms`, `4.12 s`.
pub fn format_micros(us: u64) -> String {
    match us {
        0..=9_999 => format!("{}.{:03} ms", us / 1000, us % 1000),
        10_000..=99_999 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        100_000..=999_999 => format!("{} ms", us / 1000),
        1_000_000..=99_999_999 => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_in_every_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5000),
            ("5", 5000),
            ("0.5", 500),
            (".5s", 500),
            ("2m", 120_000),
            ("1.5m", 90_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            (" 3 s ", 3000),
            ("0", 0),
            ("0.001", 1),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn sizes_parse_in_every_unit() {
        for (text, bytes) in [
            ("512", 512),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KB", 65_536),
            ("64KiB", 65_536),
            ("64M", 64 << 20),
            ("1.5G", 3 << 29),
            ("1T", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn faults_are_errors_that_show_the_right_form() {
        for text in
            ["", "s", "-5s", "5x", "1.2.3", ".", "5 5", "0.0001ms", "99999999999999999999", "18446744073709551615d"]
        {
            let error = parse_duration_ms(text).unwrap_err();
            assert_eq!(error.code(), Code::InvalidOption);
            assert!(error.to_string().contains("250ms"), "{error}");
        }
        for text in ["M", "5s", "1QB", "-1", "99999999999T"] {
            assert!(parse_size(text).unwrap_err().to_string().contains("64M"));
        }
    }

    #[test]
    fn formatted_values_read_back_the_same() {
        for ms in [0, 1, 250, 1000, 1001, 60_000, 90_000, 3_600_000, 86_400_000, u64::MAX] {
            let text = format_duration_ms(ms);
            assert_eq!(parse_duration_ms(&text), Ok(ms), "{text}");
        }
        for bytes in [0, 1, 1023, 1024, 65_536, 3 << 29, 1 << 40, u64::MAX] {
            let text = format_size(bytes);
            assert_eq!(parse_size(&text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn measured_times_keep_three_figures() {
        let shown: Vec<String> = [7, 412, 41_234, 412_345, 4_123_456, 412_345_678].map(format_micros).into();
        assert_eq!(shown, ["0.007 ms", "0.412 ms", "41.2 ms", "412 ms", "4.12 s", "412 s"]);
    }

    #[test]
    fn ages_are_short_and_exact_enough() {
        let cases = [(0, "0.0s"), (8_549, "8.5s"), (59_999, "59s"), (125_000, "2m05s"), (11_220_000, "3h07m")];
        for (ms, text) in cases.into_iter().chain([(450_000_000, "5d05h")]) {
            assert_eq!(format_age_ms(ms), text);
        }
    }
}
