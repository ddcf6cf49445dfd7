//! Metrics as lines of JSON: every event of the bus, with its numbers and the time of day.
//!
//! Source: the format is that of <https://jsonlines.org>.

use std::fmt::Write;
use std::path::PathBuf;

use plugin_api::events::Record;
use plugin_api::prelude::*;

/// Appends one line for each record to a file.
#[derive(Debug)]
pub struct MetricsJsonl {
    path: PathBuf,
}

impl Capability for MetricsJsonl {
    const NAME: &'static str = "metrics-jsonl";

    fn from_config(config: &Config) -> Result<Self> {
        Ok(Self { path: PathBuf::from(config.text("path")?) })
    }
}

impl Hook for MetricsJsonl {
    fn subscribe(self: Box<Self>, on: &mut Subscriptions) -> Result<()> {
        let mut line = String::new();
        let mut has_warned = false;
        on.observe(move |record, host| {
            line.clear();
            let written = host.services().unix_seconds().and_then(|seconds| {
                write_line(&mut line, seconds, record);
                host.services().append(&self.path, line.as_bytes())
            });
            match written {
                // Once: the cause most often stays, and events are many.
                Err(error) if !has_warned => {
                    has_warned = true;
                    host.warn(format_args!("metrics are lost: {error}"));
                }
                Err(_) => {}
                Ok(()) => has_warned = false,
            }
        });
        Ok(())
    }
}

/// Names are identifiers of this product and need no escapes; a number that JSON does not know
/// becomes `null`.
fn write_line(line: &mut String, unix_seconds: f64, record: &Record) {
    let Record { topic, request, .. } = record;
    let head =
        format_args!(r#"{{"unix_seconds":{unix_seconds:.6},"topic":"{topic}","request":{request}"#);
    // Writing to a `String` does not fail.
    let _ = line.write_fmt(head);
    for (name, value) in record.iter() {
        let _ = match value.is_finite() {
            true => write!(line, r#","{name}":{value}"#),
            false => write!(line, r#","{name}":null"#),
        };
    }
    line.push_str("}\n");
}

export_plugin!(MetricsJsonl);

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::testing::hook::{subscribe, suite};
    use plugin_api::testing::machine::Machine;

    fn config() -> Config {
        Config::new().with("path", "logs/metrics.jsonl")
    }

    #[test]
    fn passes_the_contract_suite() {
        suite::<MetricsJsonl>(&config());
    }

    #[test]
    fn writes_one_object_per_record() {
        #[rustfmt::skip]
        let cases: [(Record, &str); 3] = [
            (Record::new("after-step", 0, &[("step", 3.0), ("tokens", 64.0)]),
             r#"{"unix_seconds":1000000.500000,"topic":"after-step","request":0,"step":3,"tokens":64}"#),
            (Record::new("after-token", 7, &[("logprob", -0.25), ("odd", f64::NAN)]),
             r#"{"unix_seconds":1000000.500000,"topic":"after-token","request":7,"logprob":-0.25,"odd":null}"#),
            (Record::new("on-cancel", 8, &[]),
             r#"{"unix_seconds":1000000.500000,"topic":"on-cancel","request":8}"#),
        ];
        let (machine, mut listening) = (Machine::new(), subscribe::<MetricsJsonl>(&config()));
        let mut expected = String::new();
        for (record, line) in cases {
            listening.observers[0](&record, &machine.host("metrics-jsonl"));
            expected += line;
            expected.push('\n');
        }
        let written = machine.file("logs/metrics.jsonl").unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn warns_once_when_it_may_not_write() {
        let (machine, mut listening) = (Machine::new(), subscribe::<MetricsJsonl>(&config()));
        machine.deny("files");
        for _ in 0..3 {
            let record = Record::new("after-step", 0, &[]);
            listening.observers[0](&record, &machine.host("metrics-jsonl"));
        }
        assert_eq!(machine.log().len(), 1, "{:?}", machine.log());
    }
}
