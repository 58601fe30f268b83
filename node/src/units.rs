//! Numbers with units, as they are typed and printed.

use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Bytes: a whole number, alone or with `B`, `KiB` or `MiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = split(text);
    let unit = match unit {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        other => return Err(format!("{other:?} is no unit of size; give B, KiB or MiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is no whole number of bytes"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text} is too much"))
}

/// The same for a number that has to be below 4 GiB.
pub(crate) fn parse_bytes(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| "at most 4 GiB".to_owned())
}

/// Bytes as [`parse_size`] reads them, in the largest unit that is exact.
pub(crate) fn write_size(bytes: u64) -> String {
    match bytes {
        0 => "0B".to_owned(),
        bytes if bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        bytes if bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
        bytes => format!("{bytes}B"),
    }
}

/// A duration: a whole number with `ms` or `s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split(text);
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no duration; give a whole number with ms or s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "" => Err(format!("{text:?} has no unit; give ms or s")),
        other => Err(format!("{other:?} is no unit of time; give ms or s")),
    }
}

/// A duration as [`parse_duration`] reads it; what is below a millisecond is left out.
pub(crate) fn write_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// The number, and the unit behind it.
fn split(text: &str) -> (&str, &str) {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    (digits.trim_end(), &text[digits.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases =
            [("0", 0), ("512", 512), ("512B", 512), ("4KiB", 4096), ("4 KiB", 4096), ("3MiB", 3 << 20)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&write_size(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!([write_size(1025), write_size(u64::MAX)], ["1025B", "18446744073709551615B"]);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "-1", "1.5KiB", "4kb", "99999999999999MiB", "99999999999999999999", "1 é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_bytes("4096MiB").is_err());
        assert_eq!(parse_bytes("4095MiB"), Ok(4095 << 20));
    }

    #[test]
    fn durations_are_read_with_their_unit_only() {
        for (text, ms) in [("0s", 0), ("250ms", 250), ("2 s", 2_000), ("3600s", 3_600_000)] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(parse_duration(&write_duration(duration)), Ok(duration), "{text}");
        }
        for text in ["", "1", "s", "-1s", "1.5s", "1m", "1us", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
