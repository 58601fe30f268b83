//! Processor time of this process.

/// Seconds of processor time so far, of all threads; `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_seconds() -> Option<f64> {
    of_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Nothing can be said here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_seconds() -> Option<f64> {
    None
}

/// User and system time in the text of `/proc/self/stat`.
#[cfg(any(target_os = "linux", test))]
fn of_stat(stat: &str) -> Option<f64> {
    /// What Linux counts processor time in towards programs: hundredths of a second.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    Some((f64::from(times.next()??) + f64::from(times.next()??)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_from_the_wrong_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 999 0 1 0 250 51 8 9 20 0 4 0 100 1000 20";
        assert_eq!(of_stat(stat), Some(3.01));
        assert_eq!(of_stat("7 (a) S 1"), None);
    }
}
