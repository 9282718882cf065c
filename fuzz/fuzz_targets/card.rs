//! Parses arbitrary text as a model card: faults, or a card that can be written.
#![no_main]

use latentflow::model::ModelCard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match ModelCard::parse(text) {
        Ok(card) => {
            let written = serde_json::to_string(&card).expect("a card has a JSON form");
            assert!(!written.is_empty());
        }
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.message.is_empty()))
        }
    }
});
