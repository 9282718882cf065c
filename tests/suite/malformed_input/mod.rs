//! Tests of malformed and hostile input through the binary: every record is written or is a reject
//! with a reason, no run hangs or exceeds its memory, and invalid pipelines end with a message.

mod arrays;
mod images;
mod listings;
mod mutations;
mod parquet;
mod pipelines;
mod run;
mod tar;
mod text;
