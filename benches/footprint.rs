//! footprint
fn main() {}
