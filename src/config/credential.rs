//! Secrets that the service manager hands over (`LoadCredential=`, `systemd.exec(5)`): wherever a
//! key names a file, `credential:NAME` means the credential of that name.
//!
//! Finds files; what is in them, and who may read them, is looked at by who reads them.

use std::path::{Path, PathBuf};

use super::value::quote;

/// What a value begins with that names a credential.
const PREFIX: &str = "credential:";

/// The longest name of a file.
const NAME_BYTES_MAX: usize = 255;

/// Where systemd puts the credentials of latchkey's own unit: commands that an administrator runs
/// beside the service find them there while it runs.
const OF_THE_UNIT: &str = "/run/credentials/latchkey.service";

/// The credentials of this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    directory: Option<PathBuf>,
}

impl Credentials {
    /// Those in `directory`, if there is one.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.filter(|directory| directory.is_absolute()) }
    }

    /// The directory of the unit's credentials, if they are there.
    pub(super) fn of_the_unit() -> Option<PathBuf> {
        let directory = PathBuf::from(OF_THE_UNIT);
        directory.is_dir().then_some(directory)
    }

    /// The credential `name`, if it was handed over.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let file = self.directory.as_ref()?.join(name);
        file.is_file().then_some(file)
    }

    /// Whether `path` is one of them.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.directory.is_some() && path.parent() == self.directory.as_deref()
    }

    /// The file that `text` stands for: that of a credential, or the one it says.
    pub(super) fn resolve(&self, text: &str) -> Result<Option<String>, String> {
        let Some(name) = text.strip_prefix(PREFIX) else {
            return Ok(None);
        };
        let shown = quote(text);
        let is_name =
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != "..";
        if !is_name || name.contains(|c: char| matches!(c, '/' | ':') || c.is_control()) {
            return Err(format!("{shown} names no credential; write e.g. \"{PREFIX}master.key\""));
        }
        let advice = format!("write LoadCredential={name}:/PATH/OF/THE/FILE in its unit");
        if self.directory.is_none() {
            return Err(format!(
                "{shown} cannot be found: no service manager has handed credentials over; start \
                 latchkey by systemd, and {advice}"
            ));
        }
        let file = self.find(name).ok_or_else(|| {
            format!("{shown} cannot be found: systemd has handed over no such credential; {advice}")
        })?;
        let text = file.into_os_string().into_string();
        text.map(Some).map_err(|_| format!("{shown} is in a directory whose name is no text"))
    }
}
