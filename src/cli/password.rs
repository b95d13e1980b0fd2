//! Passwords as people give them: at the terminal, unseen and twice, or on standard input for
//! scripts. Never as an argument, which every user of the machine could read.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use super::exit::{Exit, Failure};
use crate::secret::SecretText;

/// Most bytes of standard input that are read.
const INPUT_BYTES_MAX: u64 = 4096;

/// The first line of standard input.
pub(super) fn from_stdin() -> Result<SecretText, Failure> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    let mut input = io::stdin().lock().take(INPUT_BYTES_MAX);
    let read = input.read_line(&mut line);
    read.map_err(|error| {
        Failure::new(Exit::Failure, format!("the password cannot be read: {error}"))
    })?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Failure::new(Exit::Usage, "no password on standard input")
            .hint("printf '%s\\n' \"$PASSWORD\" | latchkey operator … --password-stdin"));
    }
    Ok(SecretText::new(text.to_owned()))
}

/// What somebody types twice without an echo.
pub(super) fn asked_for() -> Result<SecretText, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to ask for the password at")
            .hint("give it with --password-stdin, or have one made up with --generate"));
    }
    let ask = |prompt: &str| {
        let typed = rpassword::prompt_password(prompt).map(SecretText::new);
        typed.map_err(|error| {
            Failure::new(Exit::Failure, format!("the password cannot be read: {error}"))
        })
    };
    let first = ask("New password: ")?;
    let second = ask("Again: ")?;
    if first.expose() == second.expose() {
        return Ok(first);
    }
    Err(Failure::new(Exit::Usage, "the two passwords differ; nothing was changed"))
}
