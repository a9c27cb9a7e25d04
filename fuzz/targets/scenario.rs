//! Any text as a scenario: an error that names the file, or a scenario that survives being
//! written and read.

#![no_main]

use dynencap_fuzz::{Kind, plant};
use dynencap_sim::scenario::Scenario;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: plant("scenario", Kind::Scenario),
    |data: &[u8]| {
        let Ok(text) = std::str::from_utf8(data) else {
            return;
        };
        match Scenario::parse("scenario", text) {
            Ok(scenario) => {
                let written = scenario.to_toml();
                match Scenario::parse("written", &written) {
                    Ok(read) => assert_eq!(read, scenario, "{written}"),
                    Err(error) => panic!("{error}\n{written}"),
                }
            }
            Err(error) => assert!(error.to_string().starts_with("scenario: ")),
        }
    }
);
