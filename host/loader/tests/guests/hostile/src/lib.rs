//! Does what a plugin must not: hangs, eats memory, panics, reads files.

use std::hint::black_box;

use plugin_api::prelude::*;

/// Does its deed when it is created, or in every `apply`.
#[derive(Debug)]
pub struct Hostile {
    deed: String,
}

impl Capability for Hostile {
    const NAME: &'static str = "hostile";

    fn from_config(config: &Config) -> Result<Self> {
        act(config.text_or("at_once", "nothing")?)?;
        Ok(Self { deed: config.text_or("deed", "nothing")?.to_owned() })
    }
}

impl LogitsProcessor for Hostile {
    fn batch(&mut self, _: &BatchChange<'_>) -> Result<()> {
        Ok(())
    }

    fn need(&self) -> Need {
        Need::Nothing
    }

    fn apply(&mut self, _: &mut LogitsRows<'_>) -> Result<()> {
        act(&self.deed)
    }
}

fn act(deed: &str) -> Result<()> {
    match deed {
        "loop" => loop {
            black_box(deed);
        },
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "stack" => {
            black_box(deeper(1));
        }
        "panic" => panic!("the {} is cursed", black_box("row")),
        "print" => println!("hello from the sandbox"),
        "sleep" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "clock" => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            return Err(Error::outside("clock", now.unwrap_or_default().as_secs()));
        }
        "environment" => return Err(Error::outside("variables", std::env::vars().count())),
        "file" => {
            let read = std::fs::read("/etc/passwd");
            return Err(Error::outside("file", read.map_or("denied", |_| "read")));
        }
        "rows" => {
            plugin_api::wasm::offers::jackfield::plugin::rows::max(99);
        }
        "error" => return Err(Error::unsupported("deed", "this one")),
        _ => {}
    }
    Ok(())
}

#[allow(unconditional_recursion, reason = "that is the deed")]
fn deeper(n: u64) -> u64 {
    black_box([n; 64]).iter().sum::<u64>() + deeper(black_box(n + 1))
}

export_plugin!(Hostile);
