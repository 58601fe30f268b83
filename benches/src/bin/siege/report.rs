//! What came of it.

use crate::Arguments;
use serde_json::Value;

/// What was measured.
#[derive(Default)]
pub(crate) struct Measured {
    /// Blocks a second, each run.
    pub(crate) alone: Vec<f64>,
    pub(crate) besieged: Vec<f64>,
    /// The server before, at its largest, and after.
    pub(crate) before: Value,
    pub(crate) worst: Value,
    pub(crate) after: Value,
    /// What the hostile peers did.
    pub(crate) hostile: Value,
}

fn count(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn mib(value: &Value) -> f64 {
    count(value, "resident_kib") as f64 / 1024.0
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

impl Measured {
    /// A look at the server under siege.
    pub(crate) fn saw(&mut self, server: Value) {
        if count(&server, "resident_kib") >= count(&self.worst, "resident_kib") {
            self.worst = server;
        }
    }

    /// Whether nothing is left of the siege at the server, but what memory the system was not given back.
    pub(crate) fn is_back(&self) -> bool {
        count(&self.after, "tasks") <= count(&self.before, "tasks")
            && ["serving", "queued", "parked"].iter().all(|field| count(&self.after, field) == 0)
    }

    /// The table.
    pub(crate) fn text(&self, arguments: &Arguments) -> String {
        let (alone, besieged) = (median(&self.alone), median(&self.besieged));
        let line = |name: &str, server: &Value| {
            format!(
                "{name:<10} {:>9.1} {:>7} {:>10} {:>8} {:>7}\n",
                mib(server),
                count(server, "tasks"),
                count(server, "connected"),
                count(server, "serving"),
                count(server, "queued"),
            )
        };
        format!(
            "{} hostile connections, each at {} times {} requests/s; {} MiB/s for one peer\n\n\
             honest: {alone:.0} blocks/s alone ({} runs), {besieged:.0} under siege ({} runs): {:.2} of it\n\
             hostile: {} requests, {} over, {} connections\n\
             refused: {} for the rate, {} repeats, {} for room; {} offences\n\n\
             server            MiB   tasks  connected  serving  queued\n{}{}{}\n\
             memory grew by {:.1} MiB, {:.1} MiB of it left; {}",
            arguments.connections,
            arguments.times,
            arguments.requests,
            arguments.served_mib,
            self.alone.len(),
            self.besieged.len(),
            besieged / alone,
            count(&self.hostile, "asked"),
            count(&self.hostile, "ended"),
            count(&self.hostile, "connections"),
            count(&self.after, "refused_rate"),
            count(&self.after, "refused_repeats"),
            count(&self.after, "refused_room"),
            count(&self.after, "offences"),
            line("before", &self.before),
            line("at worst", &self.worst),
            line("after", &self.after),
            mib(&self.worst) - mib(&self.before),
            mib(&self.after) - mib(&self.before),
            if self.is_back() { "no task or place is left of it" } else { "SOMETHING IS LEFT of it" },
        )
    }
}
