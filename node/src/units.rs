//! Numbers with units, as they are typed.

/// Bytes: a whole number, alone or with `B`, `KiB` or `MiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        other => return Err(format!("{other:?} is no unit of size; give B, KiB or MiB")),
    };
    let number: u32 =
        digits.trim_end().parse().map_err(|_| format!("{digits:?} is no whole number of bytes"))?;
    number.checked_mul(unit).ok_or_else(|| "at most 4 GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let cases =
            [("0", 0), ("512", 512), ("512B", 512), ("4KiB", 4096), ("4 KiB", 4096), ("3MiB", 3 << 20)];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "KiB", "-1", "1.5KiB", "4kb", "4096MiB", "99999999999", "1 é"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
