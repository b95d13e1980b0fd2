//! Files that hold one secret each: closed to other users, small, text.
//!
//! What is read here is handed on in a type that does not print. Nothing is cached.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::validate::parse_path;
use super::value::quote;
use crate::secret::SecretText;

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// Shortest secret that somebody else chose: an identity provider, say.
pub(super) const BYTES_MIN: usize = 1;

/// Shortest passphrase, in bytes.
pub(super) const PASSPHRASE_BYTES_MIN: usize = 12;

/// The secret in the file `path`, without the white space around it.
///
/// # Errors
///
/// What is wrong with the file and what to do: it cannot be read, every user of the machine can
/// read it, it is empty, too large or no text.
pub fn read_secret_file(path: &Path) -> Result<SecretText, String> {
    let shown = quote(&path.display().to_string());
    let unreadable = |e: std::io::Error| format!("{shown} cannot be read: {e}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!("{shown} is open to every user of this machine; chmod o-rwx it"));
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(format!("{shown} is larger than {SECRET_BYTES_MAX} bytes"));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let secret = text.trim_ascii();
    if secret.is_empty() {
        return Err(format!("{shown} is empty"));
    }
    Ok(SecretText::new(secret.to_owned()))
}

/// The path of a file that holds a secret of `bytes_min` at least. It is looked into, so that what
/// is wrong with it shows now and not when the secret is first needed.
pub(super) fn parse_secret_file(text: &str, bytes_min: usize) -> Result<PathBuf, String> {
    let path = parse_path(text)?;
    let secret = read_secret_file(&path)?;
    let length = secret.expose().len();
    if length < bytes_min {
        let shown = quote(text);
        return Err(format!("{shown} holds {length} bytes; write {bytes_min} at least"));
    }
    Ok(path)
}
