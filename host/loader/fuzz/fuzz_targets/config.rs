//! Any text is a configuration or an error, and every key that is unread has a line.
#![no_main]

use jackfield_loader::{ConfigFile, Grants};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(file) = ConfigFile::parse("jackfield.toml", text) {
        let num_lines = text.split('\n').count();
        assert!(file.unread().iter().all(|(_, line)| (1..=num_lines).contains(line)));
        if let Err(error) = Grants::from_config(file.config()) {
            assert!(file.locate(error).is_ok());
        }
    }
});
