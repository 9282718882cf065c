//! Tests of the library and of bounded runs.
#![allow(clippy::unwrap_used)]

mod arrays;
mod bad_images;
mod calibrate;
mod cli;
mod column_types;
#[path = "../common"]
mod common {
    pub mod inputs;
    pub mod outputs;
    pub mod runs;
    pub mod stages;
    pub mod test_data;
}
mod config_change;
mod crashing_record;
mod data;
mod embed;
mod ensemble;
mod evaluate;
mod examples;
mod failing_records;
mod feature_records;
mod fingerprint;
mod inputs;
mod malformed_input;
mod man;
mod models;
mod own_kinds;
mod pictures;
mod preprocess;
mod protocol;
mod reasons;
mod reference;
mod replay;
mod schema_evolution;
mod schema;
mod search;
mod shards;
mod source_rules;
mod topology;
mod train;
