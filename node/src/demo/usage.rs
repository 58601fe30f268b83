//! What this process has used of the machine, as far as the system says.

/// Processor time and memory of this process, all of its threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Seconds of processor time so far; `None` where the system does not say.
    pub(super) cpu_seconds: Option<f64>,
    /// The most memory that was ever resident, in bytes; `None` where the system does not say.
    pub(super) peak_rss_bytes: Option<u64>,
}

impl Usage {
    /// As it is now.
    #[cfg(target_os = "linux")]
    pub(super) fn now() -> Self {
        let read = |name| std::fs::read_to_string(name).ok();
        Self {
            cpu_seconds: read("/proc/self/stat").and_then(|stat| cpu_seconds(&stat)),
            peak_rss_bytes: read("/proc/self/status").and_then(|status| peak_rss_bytes(&status)),
        }
    }

    /// Nothing can be said here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn now() -> Self {
        Self { cpu_seconds: None, peak_rss_bytes: None }
    }
}

/// User and system time in the text of `/proc/self/stat`.
#[cfg(any(target_os = "linux", test))]
fn cpu_seconds(stat: &str) -> Option<f64> {
    /// What Linux counts processor time in towards programs: hundredths of a second.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    Some((f64::from(times.next()??) + f64::from(times.next()??)) / TICKS_PER_SECOND)
}

/// The peak of the resident set in the text of `/proc/self/status`.
#[cfg(any(target_os = "linux", test))]
fn peak_rss_bytes(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_from_the_wrong_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 999 0 1 0 250 51 8 9 20 0 4 0 100 1000 20";
        assert_eq!(cpu_seconds(stat), Some(3.01));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
    }

    #[test]
    fn the_peak_of_memory_is_not_found_or_in_another_unit() {
        assert_eq!(peak_rss_bytes("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 * 1024 * 1024));
        assert_eq!(peak_rss_bytes("VmHWM:\t 12\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says_nothing() {
        let usage = Usage::now();
        assert!(usage.cpu_seconds.is_some_and(f64::is_finite) && usage.peak_rss_bytes > Some(0));
    }
}
