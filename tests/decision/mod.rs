//! The decision core against a model written from the spec, and the rules that hold for every
//! request whatever the model says.

mod model;
mod properties;
mod scene;
mod table;
mod town;
