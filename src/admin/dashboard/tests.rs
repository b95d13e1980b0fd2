//! The frame, without a browser.
