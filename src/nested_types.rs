//! Searches in nested Arrow types.

use arrow::datatypes::DataType;

/// Finds the first type that meets `is_match`: `data_type` or a type inside it.
pub(crate) fn find_type<'a>(
    data_type: &'a DataType,
    is_match: &impl Fn(&DataType) -> bool,
) -> Option<&'a DataType> {
    if is_match(data_type) {
        return Some(data_type);
    }
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => find_type(item.data_type(), is_match),
        DataType::Struct(fields) => fields
            .iter()
            .find_map(|field| find_type(field.data_type(), is_match)),
        DataType::Dictionary(_, value) => find_type(value, is_match),
        _ => None,
    }
}
