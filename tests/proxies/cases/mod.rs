//! The cases, by what they are about.

pub(super) mod allowed;
pub(super) mod attacks;
pub(super) mod away;
pub(super) mod bounds;
pub(super) mod browsers;
pub(super) mod refused;
pub(super) mod wire;
