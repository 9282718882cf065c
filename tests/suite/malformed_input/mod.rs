//! Hostile input through the real binary: every record comes out, or is a reject with its reason;
//! no run hangs, none takes more memory than it may, and what cannot be run at all ends with a
//! sentence.

mod arrays;
mod images;
mod listings;
mod mutations;
mod parquet;
mod pipelines;
mod run;
mod tar;
mod text;
