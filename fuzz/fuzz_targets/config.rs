//! Any file is a valid configuration or a list of complaints that name their place; and a valid
//! one, printed and read again, is the same.
//!
//! Input: a configuration file.

#![no_main]

use latchkey::config::{ConfigFile, Sources, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Secrets of issuers are read from the files they name: not from whatever an input names.
    if text.contains("_file") {
        return;
    }
    match load(&sources(text)) {
        Ok(config) => {
            let printed = config.print();
            let again = match load(&sources(&printed)) {
                Ok(again) => again,
                Err(errors) => panic!("what was printed is refused: {errors}\n{printed}"),
            };
            assert_eq!(config.server, again.server);
            assert_eq!(config.upstreams, again.upstreams);
            assert_eq!(config.policies.routes.len(), again.policies.routes.len());
            assert_eq!(config.policies.limits.len(), again.policies.limits.len());
            assert_eq!(uncommented(&printed), uncommented(&again.print()));
        }
        Err(errors) => {
            assert!(errors.iter().next().is_some(), "refused without a reason");
            for error in errors.iter() {
                assert!(!error.message.is_empty());
                assert!(!error.key.is_empty() || error.source.is_some(), "no place: {error}");
            }
        }
    }
});

fn sources(text: &str) -> Sources {
    let file = ConfigFile::Inline { name: "input".to_owned(), text: text.to_owned() };
    Sources { file, ..Sources::default() }
}

/// Without the comments that say where a value came from.
fn uncommented(printed: &str) -> Vec<String> {
    let line = |line: &str| line.split(" # ").next().unwrap_or_default().trim().to_owned();
    printed.lines().map(line).collect()
}
