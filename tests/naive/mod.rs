//! Plain readers to compare the real ones with.

pub(crate) mod origin;
pub(crate) mod path;
