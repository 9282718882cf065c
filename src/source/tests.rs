//! Unit tests of the module `source`.

use super::*;

#[test]
fn count_is_available_after_it_is_sent() {
    let (sender, counted) = oneshot::channel();
    let mut total = RecordCount::Counting(counted);
    assert!(total.known().is_none() && matches!(total, RecordCount::Counting(_)));
    assert_eq!(sender.send(7), Ok(()));
    assert_eq!((total.known(), total.known()), (Some(7), Some(7)));
    let mut closed = RecordCount::Counting(oneshot::channel().1);
    assert!(closed.known().is_none() && matches!(closed, RecordCount::Unknown));
}
