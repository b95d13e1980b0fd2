//! Files of certificates and keys: bounded, in PEM form.
//!
//! No message quotes a file: what looks like a certificate to whoever wrote the configuration may
//! be a key.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsError;
use crate::config::TlsConfig;

/// Longest file that is read: a few hundred certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A file's mode: others may read it.
const READABLE_BY_OTHERS: u32 = 0o004;

/// What is wrong with a file.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    TooLong,
    Content(&'static str),
}

impl Fault {
    /// The error of `file`; `content` makes one of what the file holds.
    pub(super) fn of(
        self,
        file: &Path,
        content: impl FnOnce(PathBuf, &'static str) -> TlsError,
    ) -> TlsError {
        let file = file.to_owned();
        match self {
            Self::Io(source) => TlsError::Unreadable { file, source },
            Self::TooLong => TlsError::TooLong { file, max: FILE_BYTES_MAX },
            Self::Content(why) => content(file, why),
        }
    }
}

/// The certificates of a file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let (bytes, _) = read(file)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(Fault::Content("no certificate was found in it"))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(Fault::Content("its PEM form is broken")),
    }
}

/// The private key of a file.
pub(super) fn private_key(
    file: &Path,
    warnings: &mut Vec<String>,
) -> Result<PrivateKeyDer<'static>, Fault> {
    let (bytes, mode) = read(file)?;
    if mode & READABLE_BY_OTHERS != 0 {
        let file = file.display();
        warnings.push(format!("{file}: everybody may read this private key; chmod o-r {file}"));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let encrypted = || {
            let word = b"BEGIN ENCRYPTED PRIVATE KEY";
            bytes.windows(word.len()).any(|window| window == word)
        };
        Fault::Content(if !matches!(error, pem::Error::NoItemsFound) {
            "its PEM form is broken"
        } else if encrypted() {
            "the key is encrypted with a passphrase"
        } else {
            "no private key was found in it"
        })
    })
}

/// The content of a file, and its mode.
fn read(file: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), Fault> {
    let open = File::open(file).map_err(Fault::Io)?;
    let mode = open.metadata().map_err(Fault::Io)?.mode();
    let mut bytes = Zeroizing::new(Vec::new());
    open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Fault::Io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    Ok((bytes, mode))
}

/// What files hold, in short: two that differ have different ones. Tells nothing of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of the files that `config` names, as they are now. Blocks on files; one that cannot
    /// be read has a fingerprint too.
    #[must_use]
    pub fn of(config: &TlsConfig) -> Self {
        let pairs = config.certificates.iter().flat_map(|c| [&c.chain_file, &c.key_file]);
        let mut context = Context::new(&SHA256);
        for file in pairs.chain(&config.client_ca_file) {
            match read(file) {
                Ok((bytes, _)) => {
                    context.update(&(bytes.len() as u64).to_be_bytes());
                    context.update(&bytes);
                }
                // No file is that long.
                Err(_) => context.update(&u64::MAX.to_be_bytes()),
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}
