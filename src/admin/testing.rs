//! A node on a temporary store, for tests.
