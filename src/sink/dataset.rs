//! stub
pub fn describe(_: &std::path::Path) -> Result<String, crate::error::StageError> {
    unimplemented!()
}
