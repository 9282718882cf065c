//! The columns that feed the inputs of a graph, and the outputs that become columns, by the options.

use std::collections::BTreeMap;

use arrow::datatypes::Schema;

use crate::error::config_error::{ConfigError, RecordFaults};
use crate::model::graph::GraphFile;
use crate::model::tensor_selection::tensor_list;
use crate::model::tensor_spec::TensorSpec;
use crate::registry::did_you_mean;
use crate::transform::rows::find;
use crate::transform::tensor_column::feed::InputFeed;

/// The columns of each input of the graph. `named` has the columns that the options name, by the
/// name of the input.
///
/// # Errors
/// Faults at `input_feed`.
pub(super) fn input_feeds(
    named: &BTreeMap<&str, &[String]>,
    nulls_as_nan: bool,
    graph: &GraphFile,
    input: &Schema,
) -> Result<Vec<InputFeed>, Vec<ConfigError>> {
    let mut faults = Vec::new();
    let known: Vec<&str> = graph.inputs.iter().map(|spec| spec.name.as_str()).collect();
    for name in named.keys() {
        if !known.contains(name) {
            let message = format!(
                "the model has no input `{name}`{}; its inputs are: {}",
                did_you_mean(name, &known),
                tensor_list(&graph.inputs)
            );
            faults.push(ConfigError::new("input_feed", message));
        }
    }
    let feeds = graph.inputs.iter().map(|spec| {
        let columns = match named.get(spec.name.as_str()) {
            Some(columns) => named_columns(columns, spec, input)?,
            None => vec![default_column(graph, spec, input)?],
        };
        InputFeed::new(spec, input, columns, nulls_as_nan)
            .map_err(|reason| ConfigError::new("input_feed", reason))
    });
    let feeds: Vec<InputFeed> = feeds.filter_map(|feed| faults.record(feed)).collect();
    if faults.is_empty() {
        Ok(feeds)
    } else {
        Err(faults)
    }
}

/// The column with the name of the input, or the only one that fits the only input.
fn default_column(
    graph: &GraphFile,
    spec: &TensorSpec,
    input: &Schema,
) -> Result<usize, ConfigError> {
    if let Some((index, _)) = input.column_with_name(&spec.name) {
        return Ok(index);
    }
    let fits = |&index: &usize| InputFeed::new(spec, input, vec![index], false).is_ok();
    let fitting: Vec<usize> = (0..input.fields().len()).filter(fits).collect();
    let reason = match (graph.inputs.as_slice(), fitting.as_slice()) {
        ([_], [one]) => return Ok(*one),
        (_, []) => ", and no column fits it".to_owned(),
        (_, several) => {
            let names = several
                .iter()
                .map(|&index| input.field(index).name().as_str());
            format!(
                "; those that fit it are: {}",
                names.collect::<Vec<_>>().join(", ")
            )
        }
    };
    let columns: Vec<&str> = input
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let message = format!(
        "no column has the name of the input {spec}{reason}; set `input_feed`, such as \
         {{ {:?} = {:?} }}; the columns are: {}",
        spec.name,
        fitting
            .first()
            .map_or("column", |&index| input.field(index).name()),
        columns.join(", ")
    );
    Err(ConfigError::new("input_feed", message))
}

/// The names of the new columns and their outputs, in the order of the graph. `outputs` has the
/// output of each column that the options name.
///
/// # Errors
/// Faults at `outputs`.
pub(super) fn selected_outputs<'a>(
    outputs: &BTreeMap<String, String>,
    graph: &'a GraphFile,
) -> Result<Vec<(String, &'a TensorSpec)>, Vec<ConfigError>> {
    if outputs.is_empty() {
        let own = graph.outputs.iter();
        return Ok(own.map(|spec| (spec.name.clone(), spec)).collect());
    }
    let names: Vec<&str> = graph
        .outputs
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    let unknown = outputs
        .values()
        .filter(|tensor| !names.contains(&tensor.as_str()));
    let faults: Vec<ConfigError> = unknown
        .map(|tensor| {
            let message = format!(
                "the model has no output `{tensor}`{}; its outputs are: {}",
                did_you_mean(tensor, &names),
                tensor_list(&graph.outputs)
            );
            ConfigError::new("outputs", message)
        })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let of = |spec: &'a TensorSpec| {
        let columns = outputs.iter().filter(|(_, tensor)| **tensor == spec.name);
        columns.map(move |(name, _)| (name.clone(), spec))
    };
    Ok(graph.outputs.iter().flat_map(of).collect())
}

fn named_columns(
    names: &[String],
    spec: &TensorSpec,
    input: &Schema,
) -> Result<Vec<usize>, ConfigError> {
    if names.is_empty() {
        let message = format!("no column is named for the input {spec}");
        return Err(ConfigError::new("input_feed", message));
    }
    let index = |name: &String| find(input, "input_feed", name).map(|(index, _)| index);
    names.iter().map(index).collect()
}
